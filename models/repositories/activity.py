"""Jobs and batches of every tenant at a glance: what happens to them, never what was asked or answered."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Select, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from models.batch_tables import Batch, BatchTally
from models.lifecycle import Status
from models.tables import Job, Lease, Outbox, Result, Tenant

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_outbox: Final[Table] = Outbox.__table__  # type: ignore[assignment]
_leases: Final[Table] = Lease.__table__  # type: ignore[assignment]
_results: Final[Table] = Result.__table__  # type: ignore[assignment]
_tenants: Final[Table] = Tenant.__table__  # type: ignore[assignment]
_batches: Final[Table] = Batch.__table__  # type: ignore[assignment]
_tallies: Final[Table] = BatchTally.__table__  # type: ignore[assignment]

# No index has the status: failures are looked for among so many of the newest jobs.
LOOKED_THROUGH: Final = 2000
_BAD: Final = (Status.FAILED.value, Status.EXPIRED.value)


class Which(StrEnum):
    """The jobs that are listed: the newest, those that wait longest, that run, that ended badly."""

    RECENT = "recent"
    WAITING = "waiting"
    RUNNING = "running"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Glimpse:
    """One job without its prompt, answer, metadata and tags."""

    id: str
    tenant_id: str
    tenant: str
    model: str
    service_class: str
    priority: int
    status: str
    attempt: int
    worker: str | None
    batch_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    usage: dict[str, Any] | None
    error: dict[str, Any] | None
    degradation: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class BatchGlimpse:
    id: str
    tenant_id: str
    status: str
    service_class: str
    total: int
    loaded: int
    completed: int
    failed: int
    created_at: datetime
    expires_at: datetime
    finished_at: datetime | None
    retry_of: str | None
    has_failed_lines: bool  # they are in a file, and may be run again


def _glimpses() -> Select[Any]:
    joined = _jobs.join(_tenants, _tenants.c.id == _jobs.c.tenant_id).outerjoin(
        _results, _results.c.job_id == _jobs.c.id
    )
    return select(
        _jobs.c.id,
        _jobs.c.tenant_id,
        _tenants.c.name,
        _jobs.c.model,
        _jobs.c.service_class,
        _jobs.c.priority,
        _jobs.c.status,
        _jobs.c.attempt,
        _jobs.c.worker,
        _jobs.c.batch_id,
        _jobs.c.created_at,
        _jobs.c.started_at,
        _jobs.c.finished_at,
        _results.c.usage,
        _results.c.error,
        func.coalesce(_results.c.degradation, _jobs.c.degradation, type_=_jobs.c.degradation.type),
    ).select_from(joined)


async def jobs(connection: AsyncConnection, which: Which, *, limit: int) -> list[Glimpse]:
    """Those that wait longest first, all others the newest first. Ids sort by time."""
    statement = _glimpses()
    newest = _jobs.c.id.desc()
    match which:
        case Which.RECENT:
            statement = statement.order_by(newest)
        case Which.WAITING:
            oldest = select(_outbox.c.job_id).order_by(_outbox.c.job_id).limit(limit)
            statement = statement.where(_jobs.c.id.in_(oldest)).order_by(_jobs.c.id)
        case Which.RUNNING:
            held = select(_leases.c.job_id).order_by(_leases.c.job_id.desc()).limit(limit)
            statement = statement.where(_jobs.c.id.in_(held)).order_by(newest)
        case Which.FAILING:
            lately = select(_jobs.c.id).order_by(newest).limit(LOOKED_THROUGH)
            statement = statement.where(_jobs.c.id.in_(lately), _jobs.c.status.in_(_BAD)).order_by(newest)
    return [Glimpse(*row) for row in await connection.execute(statement.limit(limit))]


@dataclass(frozen=True, slots=True)
class Entry:
    """A queued job's row of the outbox."""

    state: str
    created_at: datetime
    available_at: datetime | None
    released_at: datetime | None


async def entry(connection: AsyncConnection, job_id: str) -> Entry | None:
    """None where the job does not wait."""
    columns = (_outbox.c.state, _outbox.c.created_at, _outbox.c.available_at, _outbox.c.released_at)
    row = (await connection.execute(select(*columns).where(_outbox.c.job_id == job_id))).one_or_none()
    return Entry(*row) if row else None


async def job(connection: AsyncConnection, job_id: str) -> Glimpse | None:
    row = (await connection.execute(_glimpses().where(_jobs.c.id == job_id))).one_or_none()
    return Glimpse(*row) if row else None


async def owner(connection: AsyncConnection, job_id: str) -> str | None:
    """The tenant of a job; None where there is no such job."""
    return (
        await connection.execute(select(_jobs.c.tenant_id).where(_jobs.c.id == job_id))
    ).scalar_one_or_none()


_BATCH: Final = (
    _batches.c.id,
    _batches.c.tenant_id,
    _batches.c.status,
    _batches.c.service_class,
    _batches.c.total,
    _batches.c.loaded,
    _batches.c.completed,
    _batches.c.failed,
    _batches.c.created_at,
    _batches.c.expires_at,
    _batches.c.finished_at,
    _batches.c.retry_of,
    _batches.c.error_file_id.is_not(None).label("has_failed_lines"),
)


async def batches(connection: AsyncConnection, *, limit: int) -> list[BatchGlimpse]:
    """The newest first. What ended since the sums were last written down is counted, too."""
    return await _batches_of(connection, select(*_BATCH).order_by(_batches.c.id.desc()).limit(limit))


async def batch(connection: AsyncConnection, batch_id: str) -> BatchGlimpse | None:
    found = await _batches_of(connection, select(*_BATCH).where(_batches.c.id == batch_id))
    return found[0] if found else None


async def batch_owner(connection: AsyncConnection, batch_id: str) -> str | None:
    """The tenant of a batch; None where there is no such batch."""
    return (
        await connection.execute(select(_batches.c.tenant_id).where(_batches.c.id == batch_id))
    ).scalar_one_or_none()


async def _batches_of(connection: AsyncConnection, statement: Select[Any]) -> list[BatchGlimpse]:
    rows = (await connection.execute(statement)).all()
    ended = await _tallied(connection, [row.id for row in rows])
    return [_batch(row, *ended.get(row.id, (0, 0))) for row in rows]


def _batch(row: Any, completed: int, failed: int) -> BatchGlimpse:
    values = row._asdict()
    values["completed"] += completed
    values["failed"] += failed
    return BatchGlimpse(**values)


async def _tallied(connection: AsyncConnection, batch_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    if not batch_ids:
        return {}
    rows = await connection.execute(
        select(_tallies.c.batch_id, func.sum(_tallies.c.completed), func.sum(_tallies.c.failed))
        .where(_tallies.c.batch_id.in_(batch_ids))
        .group_by(_tallies.c.batch_id)
    )
    return {batch_id: (int(completed), int(failed)) for batch_id, completed, failed in rows}
