"""How a worker is, once a heartbeat: for its metrics, and for its row that the console reads."""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from core import metrics
from models.catalogue import AnyModel
from workers.dispatch import Desk
from workers.engines.protocol import EngineHealth, EngineState
from workers.gpu import Gpus, show

_SMOOTHING: Final = 0.3  # of a heartbeat's rate in the rate that is told


class Vitals:
    """Levels and rates of every desk, and the GPUs under them."""

    def __init__(self, models: Sequence[AnyModel], desks: Mapping[str, Desk]) -> None:
        self._models = models
        self._desks = desks
        self._gpus: Gpus | None = None
        self._at = time.monotonic()
        self._rates: dict[str, float] = {}
        self._written: dict[str, int] = {}

    async def measure(self, healths: Mapping[str, EngineHealth]) -> dict[str, Any]:
        """Sets the gauges, and returns the same as JSON has it."""
        now = time.monotonic()
        elapsed, self._at = now - self._at, now
        models = {model.name: self._model(model, healths, elapsed) for model in self._models}
        readings = await asyncio.to_thread(self._read_gpus)
        busiest = max((one["utilization"] for one in readings), default=None)
        # `gpu_utilisation` is what the degradation policy reads.
        return {"models": models, "gpus": readings, "gpu_utilisation": busiest}

    def _model(self, model: AnyModel, healths: Mapping[str, EngineHealth], elapsed: float) -> dict[str, Any]:
        desk, name = self._desks[model.name], model.name
        running = list(desk.inside.values())
        tokens = sum(run.claim.cost for run in running)
        is_ready = healths[name].state is EngineState.READY
        metrics.SLOTS.labels(name).set(desk.slots)
        metrics.RUNNING.labels(name).set(len(running))
        metrics.WINDOW.labels(name).set(len(desk.window))
        metrics.TOKENS_RUNNING.labels(name).set(tokens)
        metrics.TOKEN_ROOM.labels(name).set(desk.slots * model.context_length)
        metrics.ENGINE_READY.labels(name).set(is_ready)
        metrics.COST.labels(name).inc(model.gpus * model.gpu_hour_price * elapsed / 3600)
        meter = desk.meter
        return {
            "slots": desk.slots,
            "running": len(running),
            "window": len(desk.window),
            "tokens_running": tokens,
            "ready": is_ready,
            "tokens_per_second": round(self._rate(name, meter.written, elapsed), 1),
            "cached_share": round(meter.cached / meter.prompt, 3) if meter.prompt else None,
            "finished": meter.finished,
        }

    def _rate(self, name: str, written: int, elapsed: float) -> float:
        latest = (written - self._written.get(name, 0)) / elapsed if elapsed else 0.0
        self._written[name] = written
        rate = self._rates.get(name, latest)
        self._rates[name] = rate + _SMOOTHING * (latest - rate)
        return self._rates[name]

    def _read_gpus(self) -> list[dict[str, Any]]:
        if self._gpus is None:
            self._gpus = Gpus(os.environ)
        readings = self._gpus.read()
        show(readings)
        return [one.as_dict() for one in readings]
