"""The leader's look at every model: measures the pressure, moves the policy, and tells all processes."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from core.logs import get_logger
from core.settings import Settings
from models.degradation import Level
from models.dialect import Database
from models.repositories import degradation, fleet, outbox
from models.repositories.degradation import Change, Pin
from models.repositories.fleet import WorkerRow
from models.service_class import ServiceClass
from models.waiting import Waiting
from queues.follow_ups import release_follow_ups
from queues.policy.meter import Look, Meter, measure
from queues.policy.rules import advance
from queues.policy.state import State, Verdict
from queues.pressure_board import counters_key, publish, read
from queues.redis import REDIS_DOWN, Redis

logger = get_logger(__name__)

_POLICY: Final = "policy"
_CLOCKS: Final = 1.0  # seconds that the database's clock and ours may be apart
# Part of the time that counting may take: it reads the whole outbox, of a million rows as of ten.
_DUTY: Final = 0.1


class Overload:
    """Belongs to the process that leads. What it knew goes on in Redis when another one leads."""

    def __init__(self, database: Database, redis: Redis, settings: Settings, models: Sequence[str]) -> None:
        self._database = database
        self._redis = redis
        self._namespace = settings.broker.namespace
        self._policy = settings.overload
        self._alive_within = 3 * settings.worker.heartbeat
        self._weights = {name: float(weight) for name, weight in settings.order.weights}
        self._models = models
        self._meters = {name: Meter() for name in models}
        self._states: dict[str, State] | None = None
        self._waiting: dict[tuple[str, str], Waiting] = {}
        self._count_again_at = 0.0

    async def look(self) -> int:
        """One reading of every model; the number of levels that changed."""
        counters = await self._counters()
        async with self._database.read() as connection:
            waiting = await self._count(connection)
            running = await degradation.running(connection)
            workers = await fleet.alive(connection, within=self._alive_within)
            pins = await degradation.pins(connection)
        states = self._states if self._states is not None else await self._inherited()
        now, verdicts, changes = time.time(), {}, []
        for model in self._models:
            known = states.get(model, State(since=now))
            if (ended := _pin_ended(model, known, pins.get(model), now)) is not None:
                changes.append(ended)
            before = _pinned(known, pins.get(model))
            look = Look(
                at=now,
                slots=sum(w.slots.get(model, 0) for w in workers if w.state != "draining"),
                running=running.get(model, 0),
                waiting={c.value: waiting.get((model, c.value), Waiting(0, 0, 0.0)) for c in ServiceClass},
                counters=None if counters is None else counters.get(model, {}),
                is_whole=before.level is Level.FULL,
                weights=self._weights,
                gpu=_highest(workers, "gpu_utilisation", model),
                kv=_highest(workers, "kv_usage", model),
            )
            self._meters[model], pressure = measure(self._meters[model], look)
            after = advance(before, pressure, self._policy, now=now)
            verdicts[model] = Verdict(after, pressure)
            if after.level is not states.get(model, before).level:
                changes.append(_change(model, states.get(model, before), verdicts[model]))
        await self._record(changes)
        self._states = {model: verdict.state for model, verdict in verdicts.items()}
        await self._publish(verdicts)
        return len(changes)

    async def _count(self, connection: AsyncConnection) -> dict[tuple[str, str], Waiting]:
        """What waits: at each look while the outbox is short, as often as it may cost while it is long."""
        now = time.monotonic()
        if now >= self._count_again_at:
            self._waiting = await outbox.pressure(connection)
            self._count_again_at = now + (time.monotonic() - now) / _DUTY
        return self._waiting

    async def release_follow_ups(self) -> int:
        """Full answers that wait for calm, of the models that have it; the number of them."""
        return await release_follow_ups(self._database, self._states or {})

    async def _counters(self) -> dict[str, dict[str, int]] | None:
        """By model; None while Redis is down: rates are then what they were."""
        try:
            found = await self._redis.hgetall(counters_key(self._namespace))
        except REDIS_DOWN:
            return None
        counters: dict[str, dict[str, int]] = {}
        for name, value in found.items():
            model, _, counter = _text(name).partition("\x1f")
            counters.setdefault(model, {})[counter] = int(value)
        return counters

    async def _inherited(self) -> dict[str, State]:
        """What the leader before this one had decided."""
        try:
            return {
                model: verdict.state for model, verdict in (await read(self._redis, self._namespace)).items()
            }
        except REDIS_DOWN:
            return {}

    async def _record(self, changes: Sequence[Change]) -> None:
        if not changes:
            return
        async with self._database.begin() as connection:
            await degradation.record(connection, changes)
        for change in changes:
            logger.warning(
                "degradation_changed",
                model=change.model,
                before=change.before,
                after=change.after,
                rule=change.rule,
                reason=change.reason,
            )

    async def _publish(self, verdicts: dict[str, Verdict]) -> None:
        try:
            await publish(self._redis, self._namespace, verdicts)
        except REDIS_DOWN as error:
            logger.debug("pressure_not_published", reason=type(error).__name__)


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _pinned(state: State, pin: Pin | None) -> State:
    """An operator's word goes before the rules'; one that was taken back ends at once."""
    if pin is None:
        return replace(state, pinned_until=0.0) if state.pinned_until else state
    return replace(
        state,
        level=Level(pin.level),
        since=state.since if state.pinned_until else time.time(),
        rule="pin",
        reason=f"pinned by {pin.actor}",
        pinned_until=pin.expires_at.timestamp(),
        shed=frozenset(),
    )


def _pin_ended(model: str, known: State, pin: Pin | None, now: float) -> Change | None:
    """For the audit: a pin that ran out. One that was taken back is there already, by whom."""
    if pin is not None or not known.pinned_until or now < known.pinned_until - _CLOCKS:
        return None
    reason = f"the level {int(known.level)} {known.reason} until now"
    return Change(model, known.level, known.level, "pin_expired", reason, _POLICY)


def _change(model: str, before: State, verdict: Verdict) -> Change:
    state = verdict.state
    return Change(
        model=model,
        before=before.level,
        after=state.level,
        rule=state.rule,
        reason=state.reason,
        actor=_POLICY if state.rule != "pin" else state.reason.removeprefix("pinned by "),
        reading=asdict(verdict.pressure),
    )


def _highest(workers: Sequence[WorkerRow], name: str, model: str) -> float | None:
    """The reading of the busiest worker of the model; None where none reports one."""
    found = [
        float(value)
        for worker in workers
        if model in worker.slots and isinstance(value := _stat(worker.stats, name, model), int | float)
    ]
    return max(found, default=None)


def _stat(stats: dict[str, Any], name: str, model: str) -> Any:
    value = stats.get(name)
    return value.get(model) if isinstance(value, dict) else value
