"""Reads one job for its owner: the hot copy, else the database; and waits until it is finished."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from core.errors import EventsUnavailable, NotFound, StoreUnavailable
from models.dialect import Database
from models.group_commit import GroupCommit
from models.repositories import jobs
from models.views import JobView
from queues.event_reader import EventReader
from queues.hot_jobs import LANES, TOGETHER, HotJobs

_POLL: Final = 1.0  # seconds between looks in the database while Redis is down
_CHECK: Final = 20.0  # seconds after which a silent event stream is not believed


class JobReader:
    """Every read is scoped to a tenant; another tenant's job is `NotFound`.

    Reads that come together share a statement: each alone, those of many long polls would wait for one of a
    few connections until their time is over.
    """

    def __init__(self, database: Database, hot: HotJobs, events: EventReader) -> None:
        self._database = database
        self._hot = hot
        self._events = events
        self._closing = asyncio.Event()
        self._truths: GroupCommit[str, JobView | None] = GroupCommit(
            self._truths_of, limit=TOGETHER, lanes=LANES
        )

    async def read(self, tenant_id: str, job_id: str) -> JobView:
        """Works without Redis, and for a hot copy without the database. Raises `NotFound`."""
        copy = await self._hot.get(job_id)
        if copy is None:
            return await self.read_truth(tenant_id, job_id)
        if copy.tenant_id != tenant_id:
            raise NotFound("there is no such job")
        if copy.webhook is not None:
            # The copy is of the job's end, and its delivery came after that.
            with suppress(StoreUnavailable):
                return await self.read_truth(tenant_id, job_id)
        return copy

    async def read_truth(self, tenant_id: str, job_id: str) -> JobView:
        """From the database, without a look at Redis."""
        view = await self._truths.submit(job_id)
        if view is None or view.tenant_id != tenant_id:
            raise NotFound("there is no such job")
        return view

    async def _truths_of(self, job_ids: Sequence[str]) -> list[JobView | None]:
        async with self._database.read() as connection:
            found = {view.id: view for view in await jobs.read_any(connection, sorted(set(job_ids)))}
        return [found.get(job_id) for job_id in job_ids]

    async def until_finished(self, view: JobView, within: float) -> JobView:
        """The job as it is when it has ended, or after `within` seconds, or when the process drains."""
        clock = asyncio.get_running_loop().time
        end = clock() + within
        while not view.is_finished and clock() < end and not self._closing.is_set():
            await self.pause(view.id, end - clock())
            view = await self.read(view.tenant_id, view.id)
        return view

    async def pause(self, job_id: str, at_most: float) -> None:
        """Until it is worth to read the job again."""
        try:
            await self._events.wait_finished(job_id, min(at_most, _CHECK))
        except EventsUnavailable:
            await self.tick(min(at_most, _POLL))

    async def tick(self, at_most: float = _POLL) -> bool:
        """One step of polling; True when the process drains and nobody should wait any more."""
        try:
            async with asyncio.timeout(at_most):
                await self._closing.wait()
        except TimeoutError:
            return False
        return True

    @property
    def is_draining(self) -> bool:
        return self._closing.is_set()

    async def drain(self) -> None:
        """Ends every wait, so that a process can go."""
        self._closing.set()
        await self._events.close()
