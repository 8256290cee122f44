"""The most jobs that an owner may have unfinished: which of a group of new ones are too many.

Lines of batches are not among them: a batch waits, and has a bound of its own.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol

from sqlalchemy import Table, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from models.lifecycle import Status
from models.tables import IdempotencyKey, Job

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_keys: Final[Table] = IdempotencyKey.__table__  # type: ignore[assignment]

# Those of the partial index by tenant.
_LIVE: Final = (Status.QUEUED.value, Status.RUNNING.value)


class Bounded(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def key_id(self) -> str | None: ...
    @property
    def most_of_tenant(self) -> int: ...
    @property
    def most_of_key(self) -> int: ...


async def too_many(connection: AsyncConnection, jobs: Sequence[Bounded]) -> set[str]:
    """The ids of those that would be beyond a bound, the later first; one look for the whole group.

    Two processes that accept at the same instant may each let the last one pass.
    """
    bounded = [job for job in jobs if job.most_of_tenant or job.most_of_key]
    if not bounded:
        return set()
    live = await _live(connection, {job.tenant_id for job in bounded})
    refused = set()
    for job in bounded:
        full = 0 < job.most_of_tenant <= live[job.tenant_id]
        if full or 0 < job.most_of_key <= live[job.key_id or ""]:
            refused.add(job.id)
        else:
            live.update((job.tenant_id, job.key_id or ""))
    if refused:
        # A refused submission may come again under its key.
        await connection.execute(delete(_keys).where(_keys.c.job_id.in_(refused)))
    return refused


async def _live(connection: AsyncConnection, tenants: set[str]) -> Counter[str]:
    """Unfinished jobs by tenant and by key."""
    rows = await connection.execute(
        select(_jobs.c.tenant_id, _jobs.c.key_id, func.count())
        # A line has no fingerprint, so this passes over them in the index, however many they are.
        .where(_jobs.c.tenant_id.in_(tenants), _jobs.c.fingerprint > "", _jobs.c.status.in_(_LIVE))
        .group_by(_jobs.c.tenant_id, _jobs.c.key_id)
    )
    live: Counter[str] = Counter()
    for tenant_id, key_id, jobs in rows:
        live[tenant_id] += jobs
        live[key_id or ""] += jobs
    return live
