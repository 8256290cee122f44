"""Who computes while something runs: cores in use by each process of the machine, by its name."""

import re
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

import psutil

_LEAST: Final = 0.02  # of a core: less than that is nobody's bound
_PENSTOCK: Final = re.compile(r"cli\.main (\w+)")
_CELERY: Final = {"workers.app": "penstock worker", "workers.webhooks.app": "penstock deliver"}
_SERVERS: Final = ("beam.smp", "redis-server", "postgres", "py-spy")


@dataclass
class Spent:
    """From `start` on; a process that began or ended in between counts as far as it was seen."""

    _before: dict[int, float] = field(default_factory=dict)
    _began: float = 0.0

    def start(self) -> None:
        self._before = {process.pid: seconds for process, seconds in _all()}
        self._began = perf_counter()

    def cores(self) -> dict[str, float]:
        """Mean cores, the busiest first. One thread of Python can use one of them at most."""
        elapsed = perf_counter() - self._began
        used: defaultdict[str, float] = defaultdict(float)
        for process, seconds in _all():
            with suppress(psutil.Error):
                used[_name(process)] += (seconds - self._before.get(process.pid, 0.0)) / elapsed
        ranked = sorted(used.items(), key=lambda entry: -entry[1])
        return {name: round(cores, 2) for name, cores in ranked if cores >= _LEAST}


def _all() -> Iterator[tuple[psutil.Process, float]]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            times = process.cpu_times()
            yield process, times.user + times.system


def _name(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    if found := _PENSTOCK.search(command):
        return f"penstock {found[1]}"
    for application, name in _CELERY.items():
        if f" {application} " in command:
            return name
    if "sglang" in command:  # its children rename themselves: sglang::scheduler, sglang::detokenizer
        return re.sub(r"_(TP|DP)\d.*", "", command.split()[0]) if "::" in command else "sglang (HTTP)"
    if "benchmarks.gpu.timetable" in command:
        return "timetable"
    if "benchmarks.gpu" in command:
        return "benchmark"
    own = process.name()
    return next((server for server in _SERVERS if server in own), own)
