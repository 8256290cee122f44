"""A ledger in memory: claims, fences and hands back as the database does, for unit tests of dispatch."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from models.lifecycle import Status
from models.repositories.execution import Claim, Ending, HeldLease
from models.views import JobView
from workers.runner import GiveBack


@dataclass
class FakeLedger:
    """`jobs` holds the truth; `claims` every group that was asked for; endings wait for `written`."""

    jobs: dict[str, JobView] = field(default_factory=dict)
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    endings: list[Ending] = field(default_factory=list)
    claims: list[list[str]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    asked_for_more: int = 0
    offered: list[tuple[str, int]] = field(default_factory=list)
    strikes: Counter[str] = field(default_factory=Counter)
    written: asyncio.Event | None = None
    settling: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, job_id: str, **changes: Any) -> None:
        request = changes.pop("request", {"prompt": job_id, "max_tokens": 4})
        self.requests[job_id] = request
        self.jobs[job_id] = JobView(
            **{
                "id": job_id,
                "tenant_id": "acme",
                "model": "default",
                "service_class": "standard",
                "priority": 5,
                "status": Status.QUEUED,
                "version": 1,
                "created_at": datetime.now(UTC),
            }
            | changes
        )

    async def claim(self, wanted: Sequence[tuple[str, int]]) -> list[Claim]:
        if self.failures:
            raise self.failures.pop(0)
        self.claims.append([job_id for job_id, _ in wanted])
        return [
            self._take(job_id)
            for job_id, generation in wanted
            if job_id in self.jobs
            and self.jobs[job_id].status is Status.QUEUED
            and self.jobs[job_id].generation == generation
        ]

    def _take(self, job_id: str) -> Claim:
        job = self.jobs[job_id]
        started = job.started_at or datetime.now(UTC)
        job = replace(job, status=Status.RUNNING, attempt=job.attempt + 1, started_at=started)
        self.jobs[job_id] = job
        return Claim(job, self.requests[job_id], None, 10, self.strikes[job_id])

    async def settle(self, ending: Ending) -> tuple[int, datetime] | None:
        self.settling.set()
        if self.written is not None:
            await self.written.wait()
        job = self.jobs[ending.job_id]
        allowed = (
            {Status.CANCELLING} if ending.status is Status.CANCELLED else {Status.RUNNING, Status.CANCELLING}
        )
        if job.attempt != ending.attempt or job.status not in allowed:
            return None
        self.endings.append(ending)
        self.jobs[job.id] = replace(job, status=ending.status, version=job.version + 1)
        return job.version + 1, datetime.now(UTC)

    async def give_back(self, job_id: str, attempt: int, why: GiveBack) -> bool:
        job = self.jobs[job_id]
        if job.attempt != attempt or job.status is not Status.RUNNING:
            return False
        self.jobs[job_id] = replace(
            job,
            status=Status.QUEUED,
            generation=job.generation + 1,
            excused=job.excused + why.excused,
        )
        self.strikes[job_id] += why.struck
        return True

    async def offer_again(self, waiting: Sequence[tuple[str, int]]) -> int:
        self.offered += waiting
        return len(waiting)

    async def ask_for_more(self) -> None:
        self.asked_for_more += 1

    async def extend(self, job_ids: Sequence[str]) -> list[HeldLease]:
        return [
            HeldLease(job.id, job.attempt, job.status is Status.CANCELLING)
            for job in self.jobs.values()
            if job.id in job_ids and job.status in {Status.RUNNING, Status.CANCELLING}
        ]
