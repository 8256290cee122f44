"""Who had the CPUs meanwhile: each process of the platform, its engine, the services, and the load itself."""

import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import psutil

# Also those of somebody else on this machine.
_SERVICES: Final = {"postgres": "PostgreSQL", "redis-server": "Redis", "beam.smp": "RabbitMQ"}
_LITTLE: Final = 0.01  # of a core


class CpuShares:
    """Cores used since it was made. `pids` are the platform's processes by name; their children: engines."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._at = time.monotonic()
        self._before = self._spent()

    def text(self) -> str:
        elapsed = time.monotonic() - self._at
        after = self._spent()
        cores = {name: (spent - self._before[name]) / elapsed for name, spent in after.items()}
        shown = [f"{name} {share:.2f}" for name, share in sorted(cores.items()) if share >= _LITTLE]
        return f"cores: {', '.join(shown)}, in all {sum(cores.values()):.2f}"

    def _spent(self) -> Counter[str]:
        """CPU seconds by name."""
        found: Counter[str] = Counter({"this load": _seconds(psutil.Process(os.getpid()))})
        for name, pid in self._pids.items():
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                found[name] += _seconds(process)
                found["engine"] += sum(_seconds(child) for child in process.children(recursive=True))
        for process in psutil.process_iter(["name"]):
            if (service := _SERVICES.get(process.info["name"])) is not None:
                found[service] += _seconds(process)
        return found


def _seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)
