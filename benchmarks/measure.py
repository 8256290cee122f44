"""What every benchmark shares: interleaved rounds, ratios with their spread, a table, JSON, the machine."""

import argparse
import json
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, its values of each round, and the bound that it must keep, where there is one.

    `at_most` and `at_least` are bounds on the median.
    """

    name: str
    values: tuple[float, ...]
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def holds(self) -> bool:
        too_much = self.at_most is not None and self.median > self.at_most
        too_little = self.at_least is not None and self.median < self.at_least
        return not too_much and not too_little

    @property
    def bound(self) -> str:
        if self.at_most is not None:
            return f"≤ {self.at_most:g}"
        return f"≥ {self.at_least:g}" if self.at_least is not None else ""


def ratio(name: str, ours: Sequence[float], theirs: Sequence[float], **bound: float) -> Figure:
    """Round by round: what disturbed the machine in a round disturbed both."""
    return Figure(name, tuple(a / b for a, b in zip(ours, theirs, strict=True)), "x", **bound)


def interleaved(
    rounds: int, arms: Mapping[str, Callable[[], dict[str, float]]]
) -> dict[str, dict[str, list[float]]]:
    """Every arm once a round, in turn; the order is reversed every other round."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in arms}
    for number in range(rounds):
        names = list(arms) if number % 2 == 0 else list(reversed(arms))
        for name in names:
            for figure, value in arms[name]().items():
                found[name].setdefault(figure, []).append(value)
    return found


@dataclass(slots=True)
class CpuMeter:
    """CPU seconds of processes and of all their children, from `start` on."""

    pids: Sequence[int]
    _began: float = field(default=0.0)

    def start(self) -> None:
        self._began = self._spent()

    def seconds(self) -> float:
        return self._spent() - self._began

    def _spent(self) -> float:
        return sum(_cpu_seconds(pid) for pid in self.pids)


def _cpu_seconds(pid: int) -> float:
    total = 0.0
    process = psutil.Process(pid)
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def resident_mb(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss) / 1e6


def quantile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def machine() -> str:
    model = platform.processor() or platform.machine()
    with_names = Path("/proc/cpuinfo")
    if with_names.exists():
        names = [line for line in with_names.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    memory = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} x {model}, {memory:.0f} GiB, Python {platform.python_version()}"


def parser(doc: str | None, *, rounds: int) -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--rounds", type=int, default=rounds, help=f"interleaved rounds (default {rounds})")
    found.add_argument("--json", type=Path, help="write the figures here, too")
    return found


def report(title: str, figures: Sequence[Figure], *, to: Path | None = None) -> int:
    """Prints the table and writes the JSON; the exit status, 1 where a bound does not hold."""
    table = Table("figure", "median", "spread", "bound", "", title=title)
    for one in figures:
        spread = f"{min(one.values):.4g} .. {max(one.values):.4g}" if len(one.values) > 1 else ""
        verdict = "" if not one.bound else "holds" if one.holds else "FALLS SHORT"
        table.add_row(one.name, f"{one.median:.4g} {one.unit}", spread, one.bound, verdict)
    console = Console(width=110)
    console.print(table)
    console.print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine()}")
    if to is not None:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(json.dumps(document(title, figures), indent=1, ensure_ascii=False) + "\n")
    return 0 if all(one.holds for one in figures) else 1


def document(title: str, figures: Sequence[Figure]) -> dict[str, Any]:
    return {
        "benchmark": title,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "figures": [asdict(one) | {"median": one.median, "holds": one.holds} for one in figures],
    }


@contextmanager
def many_files(wanted: int) -> Iterator[None]:
    """Raises this process's limit on open files, which those that it starts inherit."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, wanted), hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
