"""Identifiers: a kind, an underscore, and a UUIDv7 in base 62, so that ids of one kind sort by time.

UUIDv7 is RFC 9562 §5.7: 48 bits of Unix milliseconds, then random bits.
"""

import os
import time
from datetime import datetime
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_WIDTH: Final = 22  # 62**22 > 2**128


def new_id(kind: str) -> str:
    """`new_id("job")` → `job_01C7…`: 22 characters after the kind, in ASCII order of creation."""
    return f"{kind}_{_base62(_uuid7())}"


def first_id(kind: str, at: datetime) -> str:
    """The least id of its kind that could be made at this time: where a search by time begins."""
    return f"{kind}_{_base62(int(at.timestamp() * 1000) << 80)}"


def _uuid7() -> int:
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = milliseconds << 80 | random
    return value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62


def _base62(value: int) -> str:
    digits = []
    for _ in range(_WIDTH):
        value, digit = divmod(value, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
