"""Lines that passed, on disk until they are in the database, read in the order of their release."""

import os
import shutil
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, Final

import orjson

from queues.prefixes import ranks, unshared

_FOLDER: Final = "penstock-batch-"
_ROWS: Final = "rows"
_ORDER: Final = "order"


def work_folder() -> "TemporaryDirectory[str]":
    """For what is on its way; named by this process, for one that is killed leaves its folders behind."""
    return TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}-")


def remove_leftovers() -> None:
    """Folders of processes that are no more."""
    for folder in Path(gettempdir()).glob(f"{_FOLDER}*-*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdecimal() and (int(pid) == os.getpid() or not _lives(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True


@dataclass(frozen=True, slots=True)
class Placed:
    """What the order needs of a line, and where its row begins and ends."""

    number: int
    prefix: str | None
    prefix_tokens: int
    trail: str | None
    start: int
    end: int

    @property
    def key(self) -> str:
        return str(self.number)

    @property
    def arrived(self) -> float:
        return float(self.number)


def in_order(lines: Sequence[Placed], *, most: int) -> list[Placed]:
    """The longest shared prefix first, each group together; the rest as in the file. Pure.

    A prefix counts for `most` tokens; with 0 all are as in the file.
    """
    alike = ranks(lines, most=most)
    return sorted(lines, key=lambda line: (alike.get(line.key) or unshared(line), line.number))


class SpoolWriter:
    """Takes rows as they come; `close` writes down their order. `most`: tokens that a prefix counts for."""

    def __init__(self, folder: Path, *, most: int) -> None:
        self._folder = folder
        self._most = most
        self._rows = (folder / _ROWS).open("wb")
        self._placed: list[Placed] = []

    def add(self, number: int, row: dict[str, Any]) -> None:
        start = self._rows.tell()
        self._rows.write(orjson.dumps(row))
        begins = row["prefix"], row["prefix_tokens"], row["trail"]
        self._placed.append(Placed(number, *begins, start, self._rows.tell()))

    def close(self) -> None:
        self._rows.close()
        places = array("q")
        for line in in_order(self._placed, most=self._most):
            places.extend((line.start, line.end))
        (self._folder / _ORDER).write_bytes(places.tobytes())


class Spool:
    """Reads rows by their place in the order of release."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places = array("q", (folder / _ORDER).read_bytes())

    def __len__(self) -> int:
        return len(self._places) // 2

    def rows(self, start: int, count: int) -> list[dict[str, Any]]:
        return list(self._read(start, min(count, len(self) - start)))

    def _read(self, start: int, count: int) -> Iterator[dict[str, Any]]:
        with (self._folder / _ROWS).open("rb") as file:
            for place in range(start, start + count):
                begin, end = self._places[2 * place : 2 * place + 2]
                file.seek(begin)
                yield orjson.loads(file.read(end - begin))
