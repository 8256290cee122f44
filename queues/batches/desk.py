"""Where batches are worked on: looks at the unfinished ones, and does for each what is next."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from core import metrics
from core.errors import PenstockError
from core.logs import get_logger
from core.settings import Settings
from models.catalogue import Catalogue
from models.dialect import Database
from models.lifecycle import Status
from models.repositories import batch_lines, batches, outbox
from models.repositories.batches import BELL, BatchRow
from models.service_class import ServiceClass
from queues.batches.finishing import Finish
from queues.batches.hold import BatchTaken, Hold
from queues.batches.output import EXPIRED
from queues.batches.preparing import Preparation
from queues.batches.spool import remove_leftovers
from queues.batches.steps import Step, next_step
from queues.cancel_notices import publish_cancels
from queues.files import Files
from queues.redis import Redis
from queues.storage import Storage

logger = get_logger(__name__)

_RANGE: Final = 2000  # lines of the file whose jobs end in one transaction
_ADD_UP_EVERY: Final = 5.0  # seconds
_FORGET_EVERY: Final = 60.0
_AT_ONCE: Final = 4
_CHECKS_AT_ONCE: Final = 1


class BatchDesk:
    """Any number may run: each batch has one holder, whose lease and fence prove it."""

    def __init__(
        self,
        database: Database,
        redis: Redis,
        storage: Storage,
        settings: Settings,
        catalogue: Catalogue,
    ) -> None:
        self._database = database
        self._redis = redis
        self._settings = settings
        self._preparation = Preparation(database, storage, settings, catalogue)
        self._finish = Finish(database, storage, settings)
        self._files = Files(database, storage, settings.storage)
        self._working: dict[str, asyncio.Task[bool]] = {}
        self._checks = asyncio.Semaphore(_CHECKS_AT_ONCE)
        self._others = asyncio.Semaphore(_AT_ONCE)
        self._add_up_at = self._forget_at = 0.0

    async def run(self) -> None:
        """Until cancelled. One desk a process."""
        await asyncio.to_thread(remove_leftovers)
        try:
            while True:
                try:
                    await self.look()
                    await self._forget_when_due()
                except PenstockError as error:
                    logger.warning("batches_delayed", reason=str(error))
                except Exception:
                    logger.exception("batches_failed")
                await self._database.wakeups.wait(BELL, self._settings.batches.poll)
        finally:
            for task in self._working.values():
                task.cancel()
            await asyncio.gather(*self._working.values(), return_exceptions=True)

    async def look(self) -> None:
        """Begins what is to be done; returns at once."""
        async with self._database.read() as connection:
            found = await batches.unfinished(connection)
        await self._add_up_when_due(found)
        for batch in found:
            step = next_step(batch, datetime.now(UTC))
            if step is not Step.WAIT and batch.id not in self._working:
                task = asyncio.create_task(self._work(batch, step))
                self._working[batch.id] = task
                task.add_done_callback(partial(self._is_done, batch.id))

    def _is_done(self, batch_id: str, _: object) -> None:
        del self._working[batch_id]

    async def settle(self) -> None:
        """Until nothing more can be done now."""
        did = True
        while did:
            await self.look()
            did = any(await asyncio.gather(*self._working.values()))

    async def _work(self, batch: BatchRow, step: Step) -> bool:
        """Whether there may be more to do at once."""
        gate = self._checks if step in {Step.CHECK, Step.LOAD} else self._others
        try:
            async with gate:
                did = await self._held(batch, self._do(step))
        except BatchTaken:
            did = True
        except PenstockError as error:
            logger.warning("batch_delayed", batch_id=batch.id, step=step.value, reason=str(error))
            did = False
        except Exception:
            logger.exception("batch_step_failed", batch_id=batch.id, step=step.value)
            did = False
        if did:
            await self._database.wakeups.ring(BELL)
        return did

    def _do(self, step: Step) -> Callable[[Hold], Coroutine[Any, Any, None]]:
        match step:
            case Step.CHECK | Step.LOAD:
                return self._preparation.prepare
            case Step.STOP:
                return self._stop
            case _:
                return self._finish.finish

    async def _held(self, batch: BatchRow, work: Callable[[Hold], Coroutine[Any, Any, None]]) -> bool:
        lease = self._settings.batches.lease
        async with self._database.begin() as connection:
            fence = await batches.take(connection, batch.id, status=batch.status, lease=lease)
        if fence is None:
            return False
        # What was read before the lease may be what the last holder has changed since.
        async with self._database.read() as connection:
            fresh = await batches.read(connection, batch.tenant_id, batch.id)
        if fresh is None:
            return False
        hold = Hold(self._database, fresh, fence=fence, lease=lease)
        await hold.during(work(hold))
        return work != self._stop or await self._has_ended(fresh)

    async def _has_ended(self, batch: BatchRow) -> bool:
        """Otherwise what runs has yet to stop, and the next look comes soon enough."""
        async with self._database.read() as connection:
            now = await batches.read(connection, batch.tenant_id, batch.id)
        return now is not None and now.ended >= now.loaded

    async def _stop(self, hold: Hold) -> None:
        """Ends what has not begun in ranges, and asks the workers of what runs."""
        batch = hold.batch
        is_cancelled = batch.cancelling_at is not None
        status = Status.CANCELLED if is_cancelled else Status.EXPIRED
        async with self._database.begin() as connection:
            await batch_lines.stop_releasing(connection, _lanes(batch))
        async with self._database.read() as connection:
            last = await batch_lines.last_number(connection, batch.id)
        for first in range(0, last + 1, _RANGE):
            async with self._database.begin() as connection:
                ended = await batch_lines.end_queued(
                    connection,
                    batch.id,
                    range(first, first + _RANGE),
                    status=status,
                    error=None if is_cancelled else EXPIRED,
                    expires_at=datetime.now(UTC) + self._settings.upkeep.retention,
                )
            for kind, count in ended.items():
                metrics.FINISHED.labels(*kind, status.value).inc(count)
        async with self._database.begin() as connection:
            stopping = await batch_lines.ask_to_stop(connection, batch.id)
        await publish_cancels(self._redis, self._settings.broker.namespace, stopping)

    async def _add_up_when_due(self, found: list[BatchRow]) -> None:
        now = time.monotonic()
        if found and now >= self._add_up_at:
            self._add_up_at = now + _ADD_UP_EVERY
            async with self._database.begin() as connection:
                await batches.add_up(connection, [batch.id for batch in found])

    async def _forget_when_due(self) -> None:
        now = time.monotonic()
        if now >= self._forget_at:
            self._forget_at = now + _FORGET_EVERY
            await self._files.forget()
            await self._forget_ended()

    async def _forget_ended(self) -> None:
        """After the files, for a batch is kept while its output is."""
        keep, chunk = self._settings.upkeep.retention, self._settings.upkeep.retention_chunk
        gone = chunk
        while gone == chunk:
            async with self._database.begin() as connection:
                gone = await batches.forget(connection, keep=keep, limit=chunk)


def _lanes(batch: BatchRow) -> list[str]:
    """Heavy lines may be in a lower class than their batch."""
    return [
        outbox.lane(model, service_class.value, batch.tenant_id, batch.id)
        for model in batch.models
        for service_class in ServiceClass
    ]
