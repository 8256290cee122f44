"""Upkeep: what must happen although nobody asks. Plain loops, one leader, nothing through the broker."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from core import metrics
from core.errors import BrokerUnavailable, StoreUnavailable
from core.logs import get_logger
from core.settings import Settings
from models.catalogue import Catalogue
from models.dialect import Database, Leadership, open_database
from models.lifecycle import Status, attempts_left
from models.repositories import dead_letters, degradation, execution, fleet, jobs, outbox, usage
from models.repositories.execution import Ending, LostLease
from models.views import JobView
from queues.batches.desk import BatchDesk
from queues.event_writer import EventWriter
from queues.messages import identity
from queues.observer import Observer, stop_showing
from queues.overload import Overload
from queues.pressure_board import EVERY
from queues.publisher import Publisher, open_publisher
from queues.redis import open_redis
from queues.relay import BELL
from queues.storage import open_storage

logger = get_logger(__name__)

_CHUNK: Final = 500
_SILENT: Final = timedelta(hours=1)
_SHIFTS: Final = timedelta(days=8)  # a report looks back a week
_BEFORE_NEXT_RELEASE: Final = timedelta(seconds=5)


class Upkeep:
    """Safe to run twice: the leader works, the others wait to take over."""

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        settings: Settings,
        models: Sequence[str],
        *,
        events: EventWriter | None = None,
        observer: Observer | None = None,
        overload: Overload | None = None,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._settings = settings.upkeep
        self._max_attempts = settings.worker.max_attempts
        self._models = models
        self._events = events
        self._observer = observer
        self._overload = overload
        self._leadership = Leadership(database, f"{settings.broker.namespace}.upkeep")
        self._leads = False
        self._deficit_since: dict[str, datetime] = {}

    async def run(self) -> None:
        """Until cancelled: reap and expire often, reconcile and forget once in a while."""
        try:
            await asyncio.gather(self._keep(), self._watch())
        finally:
            await self._leadership.release()

    async def _keep(self) -> None:
        slow = asyncio.get_running_loop().time()
        while True:
            if await self._round((self.reap, self.expire, self._observe, self._follow_up)):
                now = asyncio.get_running_loop().time()
                if now >= slow:
                    slow = now + 10 * self._settings.reap_every.total_seconds()
                    # What needs the broker comes last: it may be away.
                    await self._round((self.forget, self.reconcile, self.revive))
            await asyncio.sleep(self._settings.reap_every.total_seconds())

    async def _follow_up(self) -> int:
        return await self._overload.release_follow_ups() if self._overload is not None else 0

    async def _watch(self) -> None:
        """Twice a second, beside the rest: the broker may hold that up, and pressure does not wait."""
        while self._overload is not None:
            await asyncio.sleep(EVERY)
            if self._leads:
                await self._work((self._overload.look, self.expire))

    async def _round(self, works: tuple[Callable[[], Awaitable[int]], ...]) -> bool:
        """One round as the leader; False when another process leads or the database is away."""
        try:
            self._leads = await self._leadership.acquire()
        except StoreUnavailable as error:
            self._leads = False
            logger.warning("upkeep_delayed", reason=str(error))
            return False
        except Exception:
            self._leads = False
            logger.exception("upkeep_failed")
            return False
        if not self._leads:
            stop_showing()
            return False
        return await self._work(works)

    async def _work(self, works: tuple[Callable[[], Awaitable[int]], ...]) -> bool:
        try:
            for work in works:
                await work()
        except (StoreUnavailable, BrokerUnavailable) as error:
            logger.warning("upkeep_delayed", reason=str(error))
            return False
        except Exception:
            logger.exception("upkeep_failed")
            return False
        return True

    async def _observe(self) -> int:
        return 0 if self._observer is None else await self._observer.show_when_due()

    async def reap(self) -> int:
        """Jobs whose lease ran out wait again, or fail when their attempts are used up."""
        async with self._database.begin() as connection:
            lost = await execution.expired_leases(connection, limit=_CHUNK)
            again = [one for one in lost if one.status is Status.RUNNING and self._may_retry(one)]
            await execution.give_back(
                self._database,
                connection,
                [(one.job_id, one.attempt) for one in again],
                excused=False,
                reason="lease_lost",
            )
            over = [self._ending(one) for one in lost if one not in again]
            await execution.settle(connection, over)
        await self._announce([one.job_id for one in lost])
        metrics.LEASES_REAPED.labels("again").inc(len(again))
        metrics.LEASES_REAPED.labels("over").inc(len(over))
        if lost:
            logger.warning(
                "leases_reaped",
                again=len(again),
                over=len(over),
                workers=sorted({one.worker for one in lost}),
            )
            await self._database.wakeups.ring(BELL)
        return len(lost)

    def _may_retry(self, lost: LostLease) -> bool:
        return attempts_left(attempt=lost.attempt, excused=lost.excused, limit=self._max_attempts) > 0

    def _ending(self, lost: LostLease) -> Ending:
        expires_at = datetime.now(UTC) + self._settings.retention
        if lost.status is Status.CANCELLING:
            return Ending(lost.job_id, lost.attempt, Status.CANCELLED, expires_at)
        error = {
            "code": dead_letters.CODE,
            "message": f"the worker was lost in each of {self._max_attempts} attempts",
        }
        return Ending(lost.job_id, lost.attempt, Status.FAILED, expires_at, error=error)

    async def expire(self) -> int:
        """Queued jobs that may not start any more; the number of them."""
        async with self._database.begin() as connection:
            expired = await jobs.expire(connection, keep=self._settings.retention, limit=_CHUNK)
        await self._announce(expired)
        return len(expired)

    async def _announce(self, job_ids: list[str]) -> None:
        """Whoever waits for these learns of it now, and not at his next look at the database."""
        if not job_ids:
            return
        async with self._database.read() as connection:
            views = await jobs.read_any(connection, job_ids)
        count_ended(views)
        if self._events is None:
            return
        for view in views:
            if view.is_finished:
                self._events.finished(view)
            else:
                self._events.emit(view.id, "status", {"status": view.status.value, "version": view.version})

    async def reconcile(self) -> int:
        """Released jobs that neither the broker nor a worker holds are released again; the number of them.

        Only a deficit that lasts counts: between a delivery and its heartbeat a job is seen nowhere.
        """
        async with self._database.read() as connection:
            released = await outbox.released_by_model(connection)
            workers = await fleet.alive(connection, within=timedelta(seconds=10))
        ready = await self._publisher.depths(self._models)
        taken = 0
        for model in self._models:
            held = sum(worker.held.get(model, 0) for worker in workers)
            seen = held + sum(depth for (name, _), depth in ready.items() if name == model)
            if self._deficit_lasts(model, released.get(model, 0) - seen):
                async with self._database.begin() as connection:
                    taken += await outbox.take_back(
                        connection, model=model, released_for=self._settings.reconcile_after
                    )
        if taken:
            metrics.RELEASES_LOST.inc(taken)
            logger.warning("releases_lost", jobs=taken)
            await self._database.wakeups.ring(BELL)
        return taken

    async def revive(self) -> int:
        """Messages that the broker or a worker gave up: their jobs wait again; the number of them.

        A message in the dead-letter queue is no dead letter: only used up attempts are, and they are counted
        in the job's row. So a job ends in one place, whoever gave up first.
        """
        revived = 0
        while messages := await self._publisher.dead(_CHUNK):
            named = [identity(message.body) for message in messages]
            known = [one for one in named if one is not None]
            if len(known) < len(messages):
                logger.error("dead_messages_dropped", messages=len(messages) - len(known))
            async with self._database.begin() as connection:
                revived += await outbox.release_again(connection, known, after=_BEFORE_NEXT_RELEASE)
            await self._publisher.bury(messages)
            if len(messages) < _CHUNK:
                break
        if revived:
            logger.warning("dead_messages_revived", jobs=revived)
        return revived

    def _deficit_lasts(self, model: str, deficit: int) -> bool:
        now = datetime.now(UTC)
        if deficit <= 0:
            self._deficit_since.pop(model, None)
            return False
        since = self._deficit_since.setdefault(model, now)
        return now - since >= self._settings.reconcile_after

    async def forget(self) -> int:
        """Finished jobs that were kept long enough, in small chunks; the number of them."""
        total = 0
        await self._forget_changes()
        async with self._database.begin() as connection:
            await usage.forget(connection, before=(datetime.now(UTC) - self._settings.usage_retention).date())
            await fleet.forget_shifts(connection, before=datetime.now(UTC) - _SHIFTS)
        while True:
            async with self._database.begin() as connection:
                gone = await jobs.forget(connection, limit=self._settings.retention_chunk)
                await fleet.forget_silent(connection, after=_SILENT)
            total += gone
            if gone < self._settings.retention_chunk:
                return total

    async def _forget_changes(self) -> None:
        older, limit, gone = self._settings.audit_retention, self._settings.retention_chunk, None
        while gone is None or gone == limit:
            async with self._database.begin() as connection:
                gone = await degradation.forget(connection, older=older, limit=limit)


def count_ended(views: Sequence[JobView]) -> None:
    """What no worker could count: jobs that were never claimed, or whose workers died."""
    for view in views:
        if not view.is_finished:
            metrics.GIVEN_BACK.labels(view.model, "lease_lost").inc()
            continue
        metrics.FINISHED.labels(view.model, view.service_class, view.status.value).inc()
        if view.status is Status.FAILED:
            metrics.FAILURES.labels(view.model, str((view.error or {}).get("code"))).inc()


async def run_upkeep(settings: Settings, catalogue: Catalogue) -> None:
    """The upkeep process, until it is cancelled."""
    models = catalogue.names
    database = open_database(settings.database, namespace=settings.broker.namespace)
    redis = open_redis(settings.redis, namespace=settings.broker.namespace)
    publisher = open_publisher(settings.broker, models)
    events = EventWriter.of(redis, settings)
    await events.start()
    try:
        observer = Observer(database, redis, settings, models, publisher=publisher)
        upkeep = Upkeep(
            database,
            publisher,
            settings,
            models,
            events=events,
            observer=observer,
            overload=Overload(database, redis, settings, models),
        )
        desk = BatchDesk(database, redis, open_storage(settings.storage), settings, catalogue)
        await asyncio.gather(upkeep.run(), desk.run())
    finally:
        await publisher.close()
        await events.close()
        await redis.aclose()
        await database.close()
