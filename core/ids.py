"""Identifiers: a kind, an underscore, and a UUIDv7 in base 62, so that ids of one kind sort by time.

UUIDv7 is RFC 9562 §5.7: 48 bits of Unix milliseconds, then random bits.
"""

import os
import time
from datetime import datetime
from hashlib import blake2b
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_WIDTH: Final = 22  # 62**22 > 2**128


def new_id(kind: str) -> str:
    """`new_id("job")` → `job_01C7…`: 22 characters after the kind, in ASCII order of creation."""
    return f"{kind}_{_base62(_uuid7())}"


def first_id(kind: str, at: datetime) -> str:
    """The least id of its kind that could be made at this time: where a search by time begins."""
    return f"{kind}_{_base62(int(at.timestamp() * 1000) << 80)}"


def numbered_id(kind: str, series: str, number: int) -> str:
    """The id of one of many that begin together: the same every time, in the order of their numbers.

    `series` is an id of `new_id`; its time is theirs. Numbers are below 2**24.
    """
    milliseconds = _from_base62(series.rpartition("_")[2]) >> 80
    salt = int.from_bytes(blake2b(series.encode(), digest_size=7).digest(), "big") & (1 << 50) - 1
    first, second = divmod(number, 1 << 12)
    return f"{kind}_{_base62(_marked(milliseconds << 80 | first << 64 | second << 50 | salt))}"


def _uuid7() -> int:
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    return _marked(milliseconds << 80 | random)


def _marked(value: int) -> int:
    """With the version and variant of a UUIDv7."""
    return value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62


def _from_base62(text: str) -> int:
    value = 0
    for digit in text:
        value = value * 62 + _ALPHABET.index(digit)
    return value


def _base62(value: int) -> str:
    digits = []
    for _ in range(_WIDTH):
        value, digit = divmod(value, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
