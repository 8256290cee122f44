"""Checks a batch's file line by line, in a process of its own: neither API nor upkeep waits for it."""

import asyncio
import ctypes
import os
import pickle
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from core.errors import InvalidField
from core.settings import ComplexitySettings
from models.catalogue import Catalogue
from models.limits import Complexity
from models.service_class import ServiceClass
from queues.batches.lines import Asked, Problem, Reading, read_line
from queues.batches.spool import SpoolWriter
from queues.limits.complexity import weigh
from queues.prompts import PromptMeter

_MOST_BAD_LINES: Final = 100
_MOST_OF_A_LINE: Final = 20  # faults
_NICE: Final = 5  # those who answer somebody go first; at 10 a busy machine left it a tenth of a core
_PR_SET_PDEATHSIG: Final = 1
_CHECK: Final = "check"
_REPORT: Final = "report"


class CheckerDied(Exception):
    """The process of a check ended without its report."""


@dataclass(frozen=True, slots=True)
class Check:
    """What is checked, and by which rules. `only`: a file of errors, whose lines alone are run."""

    file: Path
    folder: Path  # of the spool and the report
    endpoint: str
    catalogue: Catalogue
    complexity: ComplexitySettings
    service_class: ServiceClass
    ceiling: Complexity
    degradation: dict[str, Any] | None
    longest_line: int
    most_lines: int
    shared_prefix: int  # tokens that one counts for
    only: Path | None = None


@dataclass(slots=True)
class Report:
    """How the check ended: lines that passed, or how many are bad and all faults of the first of them."""

    total: int = 0
    bad: int = 0
    models: list[str] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)

    def note(self, *problems: Problem) -> None:
        """All that is wrong with one line, or with the whole."""
        self.bad += 1
        if self.bad <= _MOST_BAD_LINES:
            self.problems += [problem.document() for problem in problems[:_MOST_OF_A_LINE]]


async def run_check(check: Check) -> Report:
    """In a process of its own, which a cancellation ends. Raises `CheckerDied`."""
    await asyncio.to_thread((check.folder / _CHECK).write_bytes, pickle.dumps(check))
    command = (sys.executable, "-m", "queues.batches.checking", str(check.folder))
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    try:
        await process.wait()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    report = check.folder / _REPORT
    if process.returncode:
        raise CheckerDied(f"the process of the check ended with {process.returncode}")
    return Report(**orjson.loads(await asyncio.to_thread(report.read_bytes)))


def main(folder: Path) -> None:
    _end_with_parent()
    with suppress(OSError):
        os.nice(_NICE)
    # Written by the process that started this one, into a folder that only it may read.
    check: Check = pickle.loads((folder / _CHECK).read_bytes())  # noqa: S301
    report = asyncio.run(check_file(check))
    (folder / _REPORT).write_bytes(orjson.dumps(report))


def _end_with_parent() -> None:
    """Nobody reads the report of a check whose starter was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def check_file(check: Check) -> Report:
    """Every line; what passed is in the spool."""
    report, seen, meter = Report(), dict[str, int](), PromptMeter()
    only = None if check.only is None else frozenset(_custom_ids(check.only))
    models: set[str] = set()
    spool = SpoolWriter(check.folder, most=check.shared_prefix)
    with check.file.open("rb") as file:
        for number, raw in numbered_lines(file, check.longest_line):
            line = _read(number, raw, check, seen)
            if only is not None and line.custom_id not in only:
                continue
            row = None if line.asked is None else await _row(line, line.asked, check, meter)
            if row is None:
                report.note(*line.problems)
                continue
            report.total += 1
            models.add(row["model"])
            if report.total > check.most_lines:
                report.note(_too_many(check.most_lines))
                break
            spool.add(number, row)
    spool.close()
    if not report.total and not report.bad:
        report.note(Problem("empty_file", "The file has no line to run: it needs one request on each line."))
    report.models = sorted(models)
    return report


def numbered_lines(file: BinaryIO, longest: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, by number; one that is too long is cut just beyond the limit."""
    number = 0
    while raw := file.readline(longest + 2):
        number += 1
        rest = raw
        while not rest.endswith(b"\n") and (rest := file.readline(longest)):
            pass
        if raw.strip():
            yield number, raw.rstrip(b"\r\n")


def _read(number: int, raw: bytes, check: Check, seen: dict[str, int]) -> Reading:
    if len(raw) > check.longest_line:
        line = Reading(number)
        line.note(InvalidField("line", f"Is longer than {check.longest_line} bytes."))
        return line
    line = read_line(
        number,
        raw,
        endpoint=check.endpoint,
        catalogue=check.catalogue,
        degradation=check.degradation,
    )
    if line.custom_id is not None and (before := seen.setdefault(line.custom_id, number)) != number:
        line.note(InvalidField("custom_id", f"Is that of line {before}, too: give each line its own."))
    return line


async def _row(line: Reading, asked: Asked, check: Check, meter: PromptMeter) -> dict[str, Any] | None:
    """As it lies in the spool; None where something is wrong, a prompt too long for its model included."""
    try:
        demand = await meter.measure(asked.model, asked.request)
    except InvalidField as error:
        line.note(type(error)(asked.names.get(error.field, error.field), str(error)), within="body")
        return None
    if line.problems:
        return None
    weight = weigh(
        check.complexity,
        claimed=None,
        prompt_tokens=demand.prompt_tokens,
        max_tokens=demand.max_tokens,
        service_class=check.service_class,
        ceiling=check.ceiling,
    )
    asked.request["max_tokens"] = demand.max_tokens
    wanted = asked.wanted
    return {
        "number": line.number,
        "custom_id": asked.custom_id,
        "model": asked.model.name,
        "service_class": weight.service_class.value,
        "priority": wanted.priority,
        "cost": weight.cost,
        "prompt_tokens": demand.prompt_tokens,
        "prefix": demand.prefix,
        "prefix_tokens": demand.prefix_tokens,
        "trail": demand.trail,
        "request": asked.request,
        "metadata": wanted.metadata,
        "tags": wanted.tags,
    }


def _too_many(most: int) -> Problem:
    return Problem("too_many_lines", f"The file has more than {most} lines: split it into several batches.")


def _custom_ids(errors: Path) -> Iterator[str]:
    with errors.open("rb") as file:
        for raw in file:
            yield orjson.loads(raw)["custom_id"]


if __name__ == "__main__":
    # By its name, or what is pickled there and what is unpickled here would be two classes.
    from queues.batches.checking import main as check_folder

    check_folder(Path(sys.argv[1]))
