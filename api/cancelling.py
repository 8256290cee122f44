"""Cancels jobs on behalf of whoever may."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence

from redis.asyncio import Redis

from core import metrics
from core.clock import Clock
from core.settings import Settings
from models.dialect import Database
from models.group_commit import GroupCommit
from models.lifecycle import Status
from models.repositories import jobs, submission
from models.views import JobView
from queues.cancel_notices import publish_cancels
from queues.event_writer import EventWriter


class Canceller:
    """A job ends where it waits and is asked to end where it runs: a few statements, however many.

    Calls that come together share them: a hundred transactions one after another kept slots of a GPU busy
    for half a second.
    """

    def __init__(
        self, settings: Settings, *, database: Database, redis: Redis, notices: EventWriter, clock: Clock
    ) -> None:
        self._settings = settings
        self._database = database
        self._redis = redis
        self._notices = notices
        self._clock = clock
        self._group = GroupCommit(self._cancel_group)

    async def cancel(self, tenant_id: str, job_id: str, *, frees: str | None = None) -> JobView | None:
        """The job as it is now; None where the tenant has no such job.

        Under the idempotency key `frees` nobody was answered: whoever asks again is to get an answer.
        """
        return await self._group.submit((tenant_id, job_id, frees))

    async def cancel_all(
        self, tenant_id: str, job_ids: Sequence[str], *, frees: Mapping[str, str] | None = None
    ) -> dict[str, JobView]:
        """The tenant's own among them, as they are now. `frees` has idempotency keys by job."""
        expires_at = self._clock.now() + self._settings.upkeep.retention
        async with self._database.begin() as connection:
            changed = await jobs.cancel_all(connection, tenant_id, job_ids, expires_at=expires_at)
            for job_id, key in (frees or {}).items():
                if job_id in changed:
                    await submission.free_key(connection, tenant_id, key, job_id=job_id)
        running = [job_id for job_id, status in changed.items() if status is Status.CANCELLING]
        # The workers need not wait for the answer's sake.
        views, _ = await asyncio.gather(
            self._read(tenant_id, job_ids),
            publish_cancels(self._redis, self._settings.broker.namespace, running),
        )
        for view in views:
            if view.id in changed and view.is_finished:
                metrics.FINISHED.labels(view.model, view.service_class, view.status.value).inc()
                self._notices.finished(view)
        return {view.id: view for view in views}

    async def close(self) -> None:
        await self._group.drain()

    async def _read(self, tenant_id: str, job_ids: Sequence[str]) -> list[JobView]:
        async with self._database.read() as connection:
            return await jobs.read_many(connection, tenant_id, job_ids)

    async def _cancel_group(self, group: Sequence[tuple[str, str, str | None]]) -> list[JobView | None]:
        asked: defaultdict[str, set[str]] = defaultdict(set)
        frees: defaultdict[str, dict[str, str]] = defaultdict(dict)
        for tenant_id, job_id, key in group:
            asked[tenant_id].add(job_id)
            if key is not None:
                frees[tenant_id][job_id] = key
        found = {
            tenant_id: await self.cancel_all(tenant_id, sorted(ids), frees=frees[tenant_id])
            for tenant_id, ids in asked.items()
        }
        return [found[tenant_id].get(job_id) for tenant_id, job_id, _ in group]
