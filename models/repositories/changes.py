"""The timeline: every change of a job is written down in the transaction that makes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, FromClause, Insert, Table, delete, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Now
from models.lifecycle import Status
from models.membership import Among
from models.tables import Job, JobChange

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_changes: Final[Table] = JobChange.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Change:
    """What a job became, when, in which attempt, on which worker, and why where that is not obvious."""

    version: int
    at: datetime
    status: Status
    attempt: int
    worker: str | None
    reason: str | None


async def record(connection: AsyncConnection, job_ids: Sequence[str], reason: str | None = None) -> None:
    """The jobs as their rows now stand, to be called after each statement that moves some: one for all.

    The worker is that of the attempt: a job that waits again keeps the name of the one that lost it.
    """
    if job_ids:
        standing = select(_jobs).where(Among(_jobs.c.id, job_ids)).subquery("standing")
        await connection.execute(noting(standing, reason))


def noting(moved: FromClause, reason: str | ColumnElement[Any] | None = None) -> Insert:
    """The statement behind `record`, for one that moved jobs and returns their rows as `moved`."""
    columns = moved.c
    why = reason if isinstance(reason, ColumnElement) else literal(reason, _changes.c.reason.type)
    change = select(
        columns.id,
        columns.version,
        Now(),
        columns.status,
        columns.attempt,
        columns.worker,
        why,
    )
    return insert(_changes).from_select([c.name for c in _changes.c], change)


async def timeline(connection: AsyncConnection, tenant_id: str, job_id: str) -> list[Change] | None:
    """From the submission on, oldest first; None where the tenant has no such job."""
    found = await connection.execute(
        select(_jobs.c.created_at, _jobs.c.retry_of).where(
            _jobs.c.id == job_id, _jobs.c.tenant_id == tenant_id
        )
    )
    job = found.one_or_none()
    if job is None:
        return None
    rows = await connection.execute(
        select(_changes).where(_changes.c.job_id == job_id).order_by(_changes.c.version)
    )
    # A submission is never written twice: the job's own row says it, for as long as there is one.
    reason = f"retry of {job.retry_of}" if job.retry_of else "submitted"
    submitted = Change(1, job.created_at, Status.QUEUED, 0, None, reason)
    return [submitted, *(_to_change(row) for row in rows)]


def _to_change(row: Any) -> Change:
    return Change(row.version, row.at, Status(row.status), row.attempt, row.worker, row.reason)


async def forget(connection: AsyncConnection, job_ids: Sequence[str]) -> None:
    if job_ids:
        await connection.execute(delete(_changes).where(Among(_changes.c.job_id, job_ids)))
