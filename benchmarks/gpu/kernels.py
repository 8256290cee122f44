"""Zeroes the compiled kernels of other cards in SGLang's attention library, so that it packs into 26 MB.

Sizes and offsets stay as they were. Kept is what a Hopper card runs in bf16 with heads of 64 or 128.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_FATBIN: Final = 0xBA55ED50
_HOPPER: Final = 90
_HEADS: Final = (b"64", b"128")
_NAMES: Final = re.compile(rb"\.text\.([A-Za-z0-9_$.]+)")
_MAINLOOP: Final = re.compile(
    rb"CollectiveMainloopFwdSm90ILi\d+EN4cute5tupleIJ.*?EEENS6_IJ.*?EEELi(\d+)E",
)
_ALWAYS: Final = (b"FlashAttnFwdCombine", b"prepare_varlen")


def keep_only(source: Path, target: Path) -> tuple[int, int]:
    """Writes the copy; how many compiled pieces it kept, and how many it zeroed."""
    data = bytearray(source.read_bytes())
    kept = dropped = 0
    for offset, size, architecture in _pieces(data):
        if architecture == _HOPPER and _is_needed(bytes(data[offset : offset + size])):
            kept += 1
        else:
            dropped += 1
            data[offset : offset + size] = bytes(size)
    target.write_bytes(data)
    return kept, dropped


def _pieces(data: bytearray) -> Iterator[tuple[int, int, int]]:
    """Offset, size and architecture of each payload in the library's fat binaries."""
    for start, size in _sections(data):
        at, end = start, start + size
        while at + 16 <= end:
            magic, _version, header, length = struct.unpack_from("<IHHQ", data, at)
            if magic != _FATBIN:
                at += 8
                continue
            entry, over = at + header, at + header + length
            while entry < over:
                _kind, _, own, payload = struct.unpack_from("<HHIQ", data, entry)
                (architecture,) = struct.unpack_from("<I", data, entry + 28)
                yield entry + own, payload, architecture
                entry += own + payload
            at = (over + 7) & ~7


def _sections(data: bytearray) -> Iterator[tuple[int, int]]:
    """Offset and size of the ELF sections that hold fat binaries."""
    (table,) = struct.unpack_from("<Q", data, 0x28)
    width, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + number * width) for number in range(count)]
    for header in headers:
        begin = headers[names][4] + header[0]
        if b"nv_fatbin" in data[begin : data.index(0, begin)]:
            yield header[4], header[5]


def _is_needed(payload: bytes) -> bool:
    for name in set(_NAMES.findall(payload)):
        if any(always in name for always in _ALWAYS):
            return True
        found = _MAINLOOP.search(name)
        if found is not None and found[1] in _HEADS:
            return True
    return False
