"""The platform as a whole, looked at once in a while by one process: for Prometheus and for the console."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from core import metrics
from core.errors import BrokerUnavailable
from core.settings import Settings
from models.dialect import Database
from models.repositories import fleet, overview
from models.repositories.fleet import WorkerRow
from models.repositories.overview import Backlog, Ledger
from queues.policy.state import State, Verdict
from queues.pressure_board import read as read_verdicts
from queues.publisher import Publisher
from queues.redis import REDIS_DOWN, Redis

_DUTY: Final = 0.02  # part of the time that looking may take
_MISSED: Final = 3  # heartbeats


@dataclass(frozen=True, slots=True)
class Overview:
    """One look. `depths` is None while the broker does not answer; `verdicts` are the policy's, by model."""

    at: datetime
    ledger: Ledger
    workers: list[WorkerRow]
    depths: dict[tuple[str, str], int] | None
    verdicts: dict[str, Verdict]

    def predicted_wait(self, backlog: Backlog) -> float | None:
        """Seconds that a job accepted now would wait, as admission counts; None: nothing was measured."""
        if not backlog.jobs:
            return 0.0
        verdict = self.verdicts.get(backlog.model)
        return verdict.pressure.wait(backlog.service_class) if verdict else None


class Observer:
    """`look` at any time; `show_when_due` as often as its own cost allows."""

    def __init__(
        self,
        database: Database,
        redis: Redis,
        settings: Settings,
        models: Sequence[str],
        *,
        publisher: Publisher | None = None,
    ) -> None:
        self._database = database
        self._redis = redis
        self._publisher = publisher
        self._models = models
        self._namespace = settings.broker.namespace
        self._alive_within = _MISSED * settings.worker.heartbeat
        self._every = settings.metrics.look_every
        self._due = 0.0

    async def look(self) -> Overview:
        """Raises `StoreUnavailable`."""
        async with self._database.read() as connection:
            ledger = await overview.read(connection)
            workers = await fleet.alive(connection, within=max(self._alive_within, timedelta(seconds=10)))
        return Overview(datetime.now(UTC), ledger, workers, await self._depths(), await self._verdicts())

    async def show_when_due(self) -> int:
        """1 when the gauges were set, else 0."""
        now = time.monotonic()
        if now < self._due:
            return 0
        seen = await self.look()
        show(seen, self._models)
        spent = time.monotonic() - now
        self._due = now + max(self._every.total_seconds(), spent / _DUTY)
        return 1

    async def _depths(self) -> dict[tuple[str, str], int] | None:
        if self._publisher is None:
            return None
        try:
            return await self._publisher.depths(self._models)
        except BrokerUnavailable:
            return None

    async def _verdicts(self) -> dict[str, Verdict]:
        try:
            return await read_verdicts(self._redis, self._namespace)
        except REDIS_DOWN:
            return {}


def show(seen: Overview, models: Sequence[str]) -> None:
    """Every gauge anew: what is gone must not stay at its last value."""
    for one in metrics.OBSERVED:
        one.clear()
    for model in models:
        metrics.LIVE_SLOTS.labels(model).set(sum(w.slots.get(model, 0) for w in _serving(seen)))
        _show_verdict(model, seen.verdicts.get(model))
        for service_class in metrics.CLASSES:
            _show_backlog(seen, _backlog(seen, model, service_class))
    for (model, service_class), depth in (seen.depths or {}).items():
        metrics.BROKER_MESSAGES.labels(model, service_class).set(depth)
    metrics.BROKER_ANSWERS.set(seen.depths is not None)
    for state in metrics.WORKER_STATES:
        metrics.WORKERS.labels(state).set(sum(worker.state == state for worker in seen.workers))
    _show_ledger(seen)


def stop_showing() -> None:
    """Another process leads, and what this one knows is old."""
    for one in metrics.OBSERVED:
        one.clear()
    metrics.LEADS.set(0)


def _show_verdict(model: str, verdict: Verdict | None) -> None:
    state = verdict.state if verdict else State()
    metrics.DEGRADATION_LEVEL.labels(model).set(state.level)
    for service_class in metrics.CLASSES:
        metrics.SHEDDING.labels(model, service_class).set(service_class in state.shed)
    if verdict is not None and verdict.pressure.kv is not None:
        metrics.KV_USAGE.labels(model).set(verdict.pressure.kv)


def _show_ledger(seen: Overview) -> None:
    ledger = seen.ledger
    metrics.LEADS.set(1)
    metrics.DEAD_LETTERS.set(ledger.dead_letters)
    metrics.LEASES.set(sum(ledger.running.values()))
    metrics.LEASES_OVERDUE.set(ledger.overdue_leases)
    metrics.DELIVERIES_OPEN.set(ledger.deliveries.open)
    metrics.DELIVERIES_LATE.set(_age(seen, ledger.deliveries.late_since))
    for status in metrics.BATCH_STATES:
        metrics.BATCHES_OPEN.labels(status).set(ledger.batches.by_status.get(status, 0))
    metrics.BATCH_LINES_OPEN.set(ledger.batches.lines)


def _show_backlog(seen: Overview, backlog: Backlog) -> None:
    kind = backlog.model, backlog.service_class
    metrics.WAITING.labels(*kind).set(backlog.jobs)
    metrics.TOKENS_WAITING.labels(*kind).set(backlog.tokens)
    metrics.SCHEDULED.labels(*kind).set(backlog.scheduled)
    metrics.OUTBOX.labels(*kind).set(backlog.jobs - backlog.released)
    metrics.OUTBOX_AGE.labels(*kind).set(_age(seen, backlog.oldest_unreleased))
    metrics.OLDEST_WAIT.labels(*kind).set(_age(seen, backlog.oldest))
    predicted = seen.predicted_wait(backlog)
    if predicted is not None:
        metrics.PREDICTED_WAIT.labels(*kind).set(predicted)


def _backlog(seen: Overview, model: str, service_class: str) -> Backlog:
    for backlog in seen.ledger.backlogs:
        if (backlog.model, backlog.service_class) == (model, service_class):
            return backlog
    return Backlog(model, service_class, 0, 0, 0, 0, None, None)


def _serving(seen: Overview) -> list[WorkerRow]:
    return [worker for worker in seen.workers if worker.state == "ready"]


def _age(seen: Overview, since: datetime | None) -> float:
    return max(0.0, (seen.at - since).total_seconds()) if since else 0.0
