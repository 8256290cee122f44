"""The relay: moves what waits in the outbox to the broker, a bounded window at a time, in the one order."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, TypeVar

import orjson
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncConnection

from core import metrics
from core.errors import BrokerUnavailable, StoreUnavailable
from core.logs import get_logger
from core.settings import Settings
from core.tracing import tracing
from models.dialect import Database, open_database
from models.repositories import fleet, outbox, releasing
from models.repositories.outbox import WaitingRow
from models.service_class import ServiceClass
from queues.allowance import Allowance, Lane, Pace, allow
from queues.messages import JobEnvelope, task_id
from queues.order import Item, Load, Rules, Shares, choose
from queues.prefixes import Warm
from queues.publisher import Publisher, open_publisher
from queues.redis import Redis, open_redis
from queues.webhook_relay import WebhookRelay

logger = get_logger(__name__)

BELL: Final = "release"
RETRY: Final = timedelta(seconds=1)
# Every submission and every claim rings. Where windows are full, most of them change nothing.
_BREATH: Final = 0.01  # seconds
_LANES_PER_ROUND: Final = 64
_FRESH: Final = 1.0  # seconds that slots and rates are believed
_DUTY: Final = 0.05  # part of the time that counting the whole outbox may take
_SMOOTHING: Final = 0.3
T = TypeVar("T")
_Beginning = tuple[str | None, str | None]  # the prefix's name, or else the prompt's trail


class Relay:
    """One of possibly several: rows are locked while they are chosen, so none is released twice.

    The commit comes before the publish: whoever gets a message can claim its job at once, and no row is
    locked while the broker thinks. What it did not confirm waits again; what is lost with this process in
    between is found by the reconciler.
    """

    def __init__(self, database: Database, publisher: Publisher, redis: Redis, settings: Settings) -> None:
        self._database = database
        self._publisher = publisher
        self._settings = settings.relay
        self._alive_within = 3 * settings.worker.heartbeat
        self._rules = Rules.of(settings.order)
        self._prefix_window = settings.order.prefix_window
        # How what went last began, by model and class.
        self._warm: dict[tuple[str, str], tuple[_Beginning, ...]] = {}
        self._shares: defaultdict[str, Shares] = defaultdict(Shares)
        self._is_unfinished = False  # one round was not enough
        self._is_full = False  # something waits, and as much is released as may be
        self._gauge = Gauge(redis, settings.broker.namespace)

    async def run(self) -> None:
        """Until cancelled. What the broker or the database refuses is tried again."""
        while True:
            try:
                while await self.release() and self._is_unfinished:
                    pass
            except (BrokerUnavailable, StoreUnavailable) as error:
                logger.warning("release_delayed", reason=str(error))
                await asyncio.sleep(RETRY.total_seconds())
            except Exception:
                logger.exception("release_failed")
                await asyncio.sleep(RETRY.total_seconds())
            else:
                await asyncio.sleep(_BREATH if self._is_full else 0)
                await self._database.wakeups.wait(BELL, self._settings.poll)

    async def release(self) -> int:
        """Releases what is allowed now; the number of jobs that the broker confirmed."""
        await self._promote_scheduled()
        allowed = await self._look()
        if not allowed.lanes:
            return 0
        await self._publisher.reach()  # Or every round of an outage would mark a window and put it back.
        async with self._database.begin() as connection:
            rows = await self._candidates(connection, allowed.lanes)
            chosen = self._choose(rows, allowed)
            await outbox.mark_released(connection, _messages(chosen))
        confirmed = await uninterrupted(self._hand_over(chosen))
        self._gauge.count(confirmed)
        # Otherwise everything was released that may be, and whoever changes that rings.
        self._is_unfinished = (
            len(chosen) >= self._settings.window
            or len(confirmed) < len(chosen)
            or len(allowed.lanes) >= _LANES_PER_ROUND
        )
        return len(confirmed)

    async def _promote_scheduled(self) -> None:
        if self._gauge.schedule_is_due():
            async with self._database.begin() as connection:
                await outbox.promote_scheduled(connection)

    async def _look(self) -> Allowance:
        async with self._database.read() as connection:
            standing = await releasing.look(connection)
            await self._gauge.measure(connection, self._alive_within)
        await self._gauge.publish()
        lanes = [Lane(*outbox.lane_parts(name)) for name in standing.lanes]
        lanes = [lane for lane in lanes if lane.model not in standing.held]
        counts = {Lane(*outbox.lane_parts(name)): jobs for name, jobs in standing.released.items()}
        allowed = allow(self._least_served(lanes), counts, self._windows(lanes))
        self._is_full = bool(lanes) and not allowed.lanes
        return allowed

    def _windows(self, lanes: Sequence[Lane]) -> dict[tuple[str, str], int]:
        groups = {lane.group for lane in lanes}
        return {
            group: self._gauge.pace(*group).window(self._settings.horizon, self._settings.idle_depth)
            for group in groups
        }

    def _least_served(self, lanes: list[Lane]) -> list[Lane]:
        """With very many tenants, a round looks at those that got least so far."""
        if len(lanes) <= _LANES_PER_ROUND:
            return lanes
        return sorted(lanes, key=self._used)[:_LANES_PER_ROUND]

    def _used(self, lane: Lane) -> tuple[float, float]:
        used = self._shares[lane.model].used
        flow = (lane.service_class, lane.tenant, lane.batch or "")
        return used.get(flow[:2], 0.0), used.get(flow, 0.0)

    async def _candidates(self, connection: AsyncConnection, allowed: Mapping[Lane, int]) -> list[WaitingRow]:
        """The best of each lane, and the oldest of those lanes that have more than fits."""
        rows = await outbox.candidates(connection, [(_name(lane), n) for lane, n in allowed.items()])
        found = Counter(_lane_of(row) for row in rows)
        full = [lane for lane, n in allowed.items() if lane.batch is None and found[lane] >= n]
        for service_class, bound in self._rules.ageing.items():
            aged = [(_name(lane), allowed[lane]) for lane in full if lane.service_class == service_class]
            rows += await outbox.candidates(connection, aged, aged=timedelta(seconds=bound))
        if self._rules.max_shared_prefix:
            rows += await outbox.kin(connection, self._kin(rows, full, allowed), among=self._prefix_window)
        return list({row.job_id: row for row in rows}.values())

    def _kin(
        self, rows: Sequence[WaitingRow], full: Sequence[Lane], allowed: Mapping[Lane, int]
    ) -> list[outbox.Wanted]:
        """Whose kin to look for further back in a lane: what went last, then what goes now."""
        begun = {lane: dict.fromkeys(self._warm.get(lane.group, ())) for lane in full}
        for row in rows:
            if (known := begun.get(_lane_of(row))) is not None:
                known[row.prefix, row.trail] = None
        return [outbox.Wanted.of(_name(lane), found, limit=allowed[lane]) for lane, found in begun.items()]

    def _choose(self, rows: Sequence[WaitingRow], allowed: Allowance) -> list[JobEnvelope]:
        """Each class of each model in its order, within the allowances."""
        groups: defaultdict[tuple[str, str], list[WaitingRow]] = defaultdict(list)
        for row in rows:
            groups[row.model, row.service_class].append(row)
        room = dict(allowed.owners)
        chosen: list[JobEnvelope] = []
        for group, members in groups.items():
            for row in self._in_order(group, members, limit=allowed.classes[group]):
                owner = _lane_of(row).owner
                if room.get(owner, 0) > 0:
                    room[owner] -= 1
                    chosen.append(_envelope(row, self._gauge.backlog(*group)))
        chosen = chosen[: self._settings.window]
        self._remember(chosen)
        return chosen

    def _remember(self, chosen: Sequence[JobEnvelope]) -> None:
        """A group that one round could not release whole goes on in the next, while its prefix is warm."""
        went: defaultdict[tuple[str, str], dict[_Beginning, None]] = defaultdict(dict)
        for envelope in chosen:
            went[envelope.model, envelope.service_class][envelope.prefix, envelope.trail] = None
        self._warm |= {group: tuple(begun) for group, begun in went.items()}

    def _in_order(
        self, group: tuple[str, str], rows: Sequence[WaitingRow], *, limit: int
    ) -> list[WaitingRow]:
        model, _ = group
        by_id = {row.job_id: row for row in rows}
        warm = Warm.of(self._warm.get(group, ()))
        load = Load(now=time.time(), limit=limit, unreserved=limit, warm=warm)
        items = [_item(row) for row in rows]
        ordered, self._shares[model] = choose(items, self._shares[model], self._rules, load)
        return [by_id[item.key] for item in ordered]

    async def _hand_over(self, chosen: Sequence[JobEnvelope]) -> list[JobEnvelope]:
        """Those that the broker confirmed; the others wait again, and may go twice under the same name."""
        if not chosen:
            return []
        confirmed: list[JobEnvelope] = []
        try:
            confirmed = await self._publish(chosen)
        finally:
            if len(confirmed) < len(chosen):
                sent = {task_id(envelope) for envelope in confirmed}
                lost = [envelope for envelope in chosen if task_id(envelope) not in sent]
                metrics.UNCONFIRMED.labels("jobs").inc(len(lost))
                logger.warning("publish_unconfirmed", jobs=len(lost))
                async with self._database.begin() as connection:
                    await outbox.take_back_messages(connection, _messages(lost))
        return confirmed

    async def _publish(self, envelopes: Sequence[JobEnvelope]) -> list[JobEnvelope]:
        began = time.perf_counter()
        with released(envelopes) as traced:
            confirmed = await self._publisher.publish(traced)
        metrics.PUBLISH_SECONDS.labels("jobs").observe(time.perf_counter() - began)
        return [envelope for envelope in envelopes if task_id(envelope) in confirmed]


@contextmanager
def released(envelopes: Sequence[JobEnvelope]) -> Iterator[Sequence[JobEnvelope]]:
    """A span for each traced job of a window, from its choice to the last confirm; the run continues it."""
    if not tracing().is_on:
        yield envelopes
        return
    with ExitStack() as stack:
        traced = []
        for envelope in envelopes:
            if envelope.trace is not None:
                span = stack.enter_context(tracing().span("job.release", "producer", parent=envelope.trace))
                span.note(job=envelope.id, generation=envelope.generation, window=len(envelopes))
                envelope = replace(envelope, trace=span.traceparent)  # noqa: PLW2901 - the same job, further on
            traced.append(envelope)
        yield traced


class Gauge:
    """Slots, rates and backlogs, as far as releasing needs them; rates are shared through Redis."""

    def __init__(self, redis: Redis, namespace: str) -> None:
        self._redis = redis
        self._key = f"{namespace}:rates"
        self._slots: dict[str, int] = {}
        self._backlog: dict[tuple[str, str], tuple[int, int]] = {}
        self._released: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._rates: dict[tuple[str, str], float] = {}
        self._measured_at = self._published_at = self._rated_at = 0.0
        self._count_again_at = 0.0
        self._schedule_again_at = 0.0

    def pace(self, model: str, service_class: str) -> Pace:
        return Pace(self._slots.get(model, 0), self._rates.get((model, service_class), 0.0))

    def backlog(self, model: str, service_class: str) -> int:
        """Tokens that waited at the last count."""
        return self._backlog.get((model, service_class), (0, 0))[1]

    def count(self, envelopes: Sequence[JobEnvelope]) -> None:
        for kind, jobs in Counter((one.model, one.service_class) for one in envelopes).items():
            self._released[kind] += jobs
            metrics.RELEASED.labels(*kind).inc(jobs)

    def schedule_is_due(self) -> bool:
        now = time.monotonic()
        if now < self._schedule_again_at:
            return False
        self._schedule_again_at = now + 0.2
        return True

    async def measure(self, connection: AsyncConnection, alive_within: timedelta) -> None:
        now = time.monotonic()
        if now - self._measured_at >= _FRESH:
            self._measured_at = now
            self._slots = await _live_slots(connection, alive_within)
            self._rate(now)
        if now >= self._count_again_at:
            self._backlog = await outbox.waiting_counts(connection)
            spent = time.monotonic() - now
            self._count_again_at = time.monotonic() + max(0.25, spent / _DUTY)

    def _rate(self, now: float) -> None:
        """Released jobs a second, smoothed: in a backlog the broker takes what the workers take.

        Without a backlog releases measure the demand, and the last rate known stands.
        """
        elapsed, self._rated_at = now - self._rated_at, now
        released, self._released = self._released, defaultdict(int)
        for group in (group for group, (jobs, _) in self._backlog.items() if jobs):
            latest = released.get(group, 0) / elapsed
            rate = self._rates.get(group, latest)
            self._rates[group] = rate + _SMOOTHING * (latest - rate)

    async def publish(self) -> None:
        """For the API's estimates: `{"model/class": jobs a second}`."""
        now = time.monotonic()
        if now - self._published_at < _FRESH or not self._rates:
            return
        self._published_at = now
        rates = {f"{model}/{service_class}": rate for (model, service_class), rate in self._rates.items()}
        with suppress(RedisError, OSError):
            await self._redis.set(self._key, orjson.dumps(rates), ex=30)


async def _live_slots(connection: AsyncConnection, within: timedelta) -> dict[str, int]:
    slots: defaultdict[str, int] = defaultdict(int)
    for worker in await fleet.alive(connection, within=within):
        if worker.state != "draining":
            for model, count in worker.slots.items():
                slots[model] += count
    return dict(slots)


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Does it to its end even where the caller is cancelled: what was begun is not left half done."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        with suppress(Exception):  # Nobody is there any more to be told.
            task.result()
        raise


def _messages(envelopes: Sequence[JobEnvelope]) -> list[tuple[str, int]]:
    return [(envelope.id, envelope.generation) for envelope in envelopes]


def _name(lane: Lane) -> str:
    return outbox.lane(lane.model, lane.service_class, lane.tenant, lane.batch)


def _lane_of(row: WaitingRow) -> Lane:
    return Lane(row.model, row.service_class, row.tenant_id, row.batch_id)


def _item(row: WaitingRow) -> Item:
    return Item(
        key=row.job_id,
        service_class=ServiceClass(row.service_class),
        tenant=row.tenant_id,
        priority=9 - row.rank,
        cost=row.cost,
        arrived=row.created_at.timestamp(),
        deadline=row.deadline.timestamp() if row.deadline else None,
        prefix=row.prefix,
        prefix_tokens=row.prefix_tokens,
        batch=row.batch_id,
        trail=row.trail,
    )


def _envelope(row: WaitingRow, backlog: int) -> JobEnvelope:
    return JobEnvelope(
        id=row.job_id,
        generation=row.generation,
        model=row.model,
        service_class=row.service_class,
        tenant=row.tenant_id,
        priority=9 - row.rank,
        cost=row.cost,
        arrived=row.created_at.timestamp(),
        deadline=row.deadline.timestamp() if row.deadline else None,
        prefix=row.prefix,
        prefix_tokens=row.prefix_tokens,
        trail=row.trail,
        backlog=backlog,
        attempts=row.attempts,
        strikes=row.strikes,
        trace=row.trace,
        batch=row.batch_id,
    )


async def run_relay(settings: Settings, models: Sequence[str]) -> None:
    """The relay's process, until it is cancelled."""
    database = open_database(settings.database, namespace=settings.broker.namespace)
    redis = open_redis(settings.redis, namespace=settings.broker.namespace)
    publisher = open_publisher(settings.broker, models)
    try:
        await asyncio.gather(
            Relay(database, publisher, redis, settings).run(),
            WebhookRelay(database, publisher, settings).run(),
        )
    finally:
        await publisher.close()
        await redis.aclose()
        await database.close()
