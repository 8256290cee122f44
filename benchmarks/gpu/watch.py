"""What the card and the engine say while something runs: utilisation through NVML, running requests."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final, Self

import httpx
import pynvml

from benchmarks.gpu.server import HEADERS

_EVERY: Final = 0.1  # seconds


@dataclass
class Watch:
    """Samples of one run, taken in a thread of its own. `with Watch(url) as watch: …`."""

    url: str
    running: list[tuple[float, int]] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    busy: list[int] = field(default_factory=list)
    every: float = _EVERY

    def __enter__(self) -> Self:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(10)

    def _look(self) -> None:
        handle = _card()
        with httpx.Client(base_url=self.url, headers=HEADERS, timeout=5) as client:
            while not self._over.wait(self.every):
                if handle is not None:
                    self.busy.append(int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))
                with suppress(httpx.HTTPError):
                    running, waiting = loads(client)
                    self.running.append((time.time(), running))
                    self.waiting.append(waiting)

    def document(self, slots: int) -> dict[str, Any]:
        """Of the middle of the run: its first and last tenth fill and drain the engine."""
        edge = len(self.running) // 10
        middle = [count for _, count in self.running[edge : len(self.running) - edge or None]]
        inside = self.busy[len(self.busy) // 10 : len(self.busy) - len(self.busy) // 10 or None]
        return {
            "running_share": round(sum(middle) / len(middle) / slots, 3) if middle else None,
            "waiting_most": max(self.waiting, default=0),
            "nvml_mean": round(sum(inside) / len(inside), 1) if inside else None,
            "nvml_median": median(inside) if inside else None,
        }


def loads(client: httpx.Client) -> tuple[int, int]:
    """Requests that run and that wait inside SGLang."""
    found = client.get("/v1/loads").raise_for_status().json()["loads"]
    return sum(one["num_running_reqs"] for one in found), sum(one["num_waiting_reqs"] for one in found)


def _card() -> Any:
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return None
