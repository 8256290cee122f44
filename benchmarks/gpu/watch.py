"""What the card and the engine say while something runs: utilisation through NVML, running requests."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any, Final, Self

import httpx
import pynvml

from benchmarks.gpu.server import HEADERS

_EVERY: Final = 0.1  # seconds
_POINTS: Final = 40

Sample = tuple[float, int]  # seconds since 1970, and what was read then


@dataclass
class Watch:
    """Samples of one run, taken in a thread of its own. `with Watch(url) as watch: …`."""

    url: str
    running: list[Sample] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    busy: list[Sample] = field(default_factory=list)
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
                    self.busy.append((time.time(), int(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)))
                with suppress(httpx.HTTPError):
                    running, waiting = loads(client)
                    self.running.append((time.time(), running))
                    self.waiting.append(waiting)

    def document(self, slots: int, *, backlog: tuple[float, float] | None = None) -> dict[str, Any]:
        """Of the middle of the run: its first and last tenth fill and drain the engine.

        `backlog` are the times between which more waited than there were slots.
        """
        edge = len(self.running) // 10
        middle = [count for _, count in self.running[edge : len(self.running) - edge or None]]
        busy = [percent for _, percent in self.busy]
        inside = busy[len(busy) // 10 : len(busy) - len(busy) // 10 or None]
        found = {
            "running_share": round(fmean(middle) / slots, 3) if middle else None,
            "waiting_most": max(self.waiting, default=0),
            "nvml_mean": round(fmean(inside), 1) if inside else None,
            "nvml_median": median(inside) if inside else None,
        }
        if backlog is not None:
            running, used = _within(self.running, backlog), _within(self.busy, backlog)
            found["backlog_seconds"] = round(backlog[1] - backlog[0], 2)
            found["backlog_running_share"] = round(fmean(running) / slots, 3) if running else None
            found["backlog_nvml_mean"] = round(fmean(used), 1) if used else None
        return found

    def course(self) -> list[tuple[float, int]]:
        """Requests that ran, by seconds since the first look: what filled and drained when."""
        step = max(1, len(self.running) // _POINTS)
        return [(round(at - self.running[0][0], 2), count) for at, count in self.running[::step]]


def loads(client: httpx.Client) -> tuple[int, int]:
    """Requests that run and that wait inside SGLang."""
    found = client.get("/v1/loads").raise_for_status().json()["loads"]
    return sum(one["num_running_reqs"] for one in found), sum(one["num_waiting_reqs"] for one in found)


def _within(samples: Sequence[Sample], span: tuple[float, float]) -> list[int]:
    return [value for at, value in samples if span[0] <= at <= span[1]]


def _card() -> Any:
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return None
