"""Accepting jobs: everything that waits goes into one transaction, then one bell for the relay."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy.exc import DataError, IntegrityError

from core import metrics
from core.errors import OutboxFull, StoreUnavailable
from core.logs import get_logger
from core.tracing import tracing
from models.degradation import Level
from models.dialect import Database
from models.group_commit import GroupCommit
from models.lifecycle import Status
from models.repositories import jobs, outbox, submission
from models.repositories.submission import NewJob, ReadyAnswer, Receipt, Reception

logger = get_logger(__name__)

_DUTY: Final = 20  # counting takes at most a twentieth of the time
_FRESH: Final = 1.0  # seconds that a count is believed at least


class Submission:
    """Accepts jobs, at most `max_queued` waiting at a time."""

    def __init__(self, database: Database, *, max_queued: int) -> None:
        self._database = database
        self._cap = OutboxCap(database, max_queued)
        self._group = GroupCommit(self._accept, retry_alone=_is_about_one_row)
        self._bell = Bell(database)

    @property
    def waiting(self) -> int:
        """About how many jobs wait."""
        return self._cap.waiting

    async def submit(self, job: NewJob) -> Receipt:
        """Returns after the commit. Raises `OutboxFull` and `StoreUnavailable`."""
        if job.answer is None:
            await self._cap.check()
        if not tracing().is_on:
            return await self._group.submit(job)
        with tracing().span("job.submit", "producer") as span:
            span.note(job=job.id, tenant=job.tenant_id, model=job.model, service_class=job.service_class)
            return await self._group.submit(replace(job, trace=span.traceparent))

    async def check_room(self) -> None:
        """Raises `OutboxFull` where nothing more may wait."""
        await self._cap.check()

    async def find_in_flight(self, tenant_id: str, fingerprint: str) -> str | None:
        """The unfinished job of the tenant that asked exactly this: what a retry without a key meant."""
        async with self._database.read() as connection:
            return await jobs.find_in_flight(connection, tenant_id, fingerprint)

    async def find_by_key(self, tenant_id: str, key: str) -> tuple[str, str] | None:
        """The job that was submitted under this idempotency key, and its fingerprint."""
        async with self._database.read() as connection:
            return await submission.find_by_key(connection, tenant_id, key)

    async def free_key(self, tenant_id: str, key: str, *, job_id: str) -> None:
        """That job never answered: the next request under its idempotency key is a first one."""
        async with self._database.begin() as connection:
            await submission.free_key(connection, tenant_id, key, job_id=job_id)

    def ring(self) -> None:
        """Something waits again; returns at once."""
        self._bell.ring()

    async def close(self) -> None:
        await self._group.drain()
        await self._cap.close()
        await self._bell.close()

    async def _accept(self, group: Sequence[NewJob]) -> Sequence[Receipt]:
        began = time.perf_counter()
        one = submission.is_one_statement(group)
        async with self._database.at_once() if one else self._database.begin() as connection:
            receipts = await submission.accept(self._database, connection, group)
        metrics.SUBMISSION_SECONDS.observe(time.perf_counter() - began)
        count_accepted(group, receipts)
        waiting = sum(job.answer is None for job in group)
        if waiting:
            self._cap.add(waiting)
            self._bell.ring()
        return receipts


def count_accepted(group: Sequence[NewJob], receipts: Sequence[Receipt]) -> None:
    """Once for a group and each model and class in it."""
    jobs: Counter[tuple[str, str]] = Counter()
    tokens: Counter[tuple[str, str]] = Counter()
    for job, receipt in zip(group, receipts, strict=True):
        if receipt.reception is Reception.CREATED:
            jobs[job.model, job.service_class] += 1
            tokens[job.model, job.service_class] += job.cost
            if job.answer is not None:
                count_answered(job, job.answer)
    metrics.SUBMISSION_GROUP.observe(len(group))
    for kind, count in jobs.items():
        metrics.ACCEPTED.labels(*kind).inc(count)
        metrics.TOKENS_ACCEPTED.labels(*kind).inc(tokens[kind])


def count_answered(job: NewJob, answer: ReadyAnswer) -> None:
    """A job that was answered at once never comes to a worker, who would count its end."""
    label = answer.degradation.name if answer.degradation else Level.FULL.label
    metrics.ANSWERS.labels(job.model, label).inc()
    metrics.FINISHED.labels(job.model, job.service_class, Status.COMPLETED.value).inc()


def _is_about_one_row(error: Exception) -> bool:
    return isinstance(error, DataError | IntegrityError)


class Bell:
    """Wakes the relay in the background: one ring at a time, and one more for all that came meanwhile."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted = False
        self._task: asyncio.Task[None] | None = None

    def ring(self) -> None:
        self._wanted = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ring())

    async def close(self) -> None:
        if self._task is not None:
            await self._task

    async def _ring(self) -> None:
        while self._wanted:
            self._wanted = False
            await self._database.wakeups.ring(outbox.BELL)


class OutboxCap:
    """Refuses beyond a number of waiting jobs, which is counted rarely and guessed in between."""

    def __init__(self, database: Database, limit: int) -> None:
        self.waiting = 0
        self._database = database
        self._limit = limit
        self._next_count = 0.0
        self._counted = False
        self._task: asyncio.Task[None] | None = None

    def add(self, jobs: int) -> None:
        self.waiting += jobs

    async def check(self) -> None:
        """Raises `OutboxFull`."""
        is_due = time.monotonic() >= self._next_count
        if is_due and (not self._counted or self.waiting >= self._limit):
            await asyncio.shield(self._start())
        elif is_due:
            self._start()
        if self.waiting >= self._limit:
            error = OutboxFull(f"{self._limit} jobs are waiting; no more are accepted until some are done")
            error.retry_after = max(1.0, self._next_count - time.monotonic())
            raise error

    async def close(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    def _start(self) -> asyncio.Task[None]:
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._count())
        return self._task

    async def _count(self) -> None:
        started = time.monotonic()
        try:
            async with self._database.read() as connection:
                self.waiting = await outbox.count_up_to(connection, self._limit)
            self._counted = True
        except StoreUnavailable:
            logger.debug("outbox_not_counted")
        took = time.monotonic() - started
        self._next_count = time.monotonic() + max(_FRESH, _DUTY * took)
