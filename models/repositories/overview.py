"""What is true of the whole platform now: how much waits, runs, is dead or undelivered. Aggregates only."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Table, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from models.batch_tables import Batch
from models.dialect import Now
from models.tables import DeadLetter, Job, Lease, Outbox, Tenant
from models.webhook_tables import WebhookDelivery

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_outbox: Final[Table] = Outbox.__table__  # type: ignore[assignment]
_leases: Final[Table] = Lease.__table__  # type: ignore[assignment]
_dead: Final[Table] = DeadLetter.__table__  # type: ignore[assignment]
_deliveries: Final[Table] = WebhookDelivery.__table__  # type: ignore[assignment]
_tenants: Final[Table] = Tenant.__table__  # type: ignore[assignment]
_batches: Final[Table] = Batch.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits of one model and class; `released` of the jobs are with the broker or a worker's window.

    `oldest` is when the job that waits longest was accepted, `oldest_unreleased` the same of the outbox.
    """

    model: str
    service_class: str
    jobs: int
    tokens: int
    released: int
    scheduled: int
    oldest: datetime | None
    oldest_unreleased: datetime | None


@dataclass(frozen=True, slots=True)
class Deliveries:
    """Webhook deliveries that are not done; `late_since` is when the first of them became due."""

    open: int
    late_since: datetime | None


@dataclass(frozen=True, slots=True)
class OpenBatches:
    """Batches that have not ended, by status, and their lines that have not."""

    by_status: dict[str, int] = field(default_factory=dict)
    lines: int = 0


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that the database knows of the moment."""

    backlogs: list[Backlog]
    deliveries: Deliveries
    dead_letters: int
    running: dict[str, int] = field(default_factory=dict)
    overdue_leases: int = 0
    batches: OpenBatches = field(default_factory=OpenBatches)


@dataclass(frozen=True, slots=True)
class TenantLoad:
    """What one tenant has in the queue and on the engines."""

    id: str
    name: str
    waiting: int
    tokens: int
    running: int
    oldest: datetime | None


async def read(connection: AsyncConnection) -> Ledger:
    """Reads the outbox and the leases whole: for one reader in a while, not for each request."""
    running, overdue = await _running(connection)
    return Ledger(
        backlogs=await backlogs(connection),
        deliveries=await _open_deliveries(connection),
        dead_letters=await _open_dead_letters(connection),
        running=running,
        overdue_leases=overdue,
        batches=await _open_batches(connection),
    )


async def backlogs(connection: AsyncConnection) -> list[Backlog]:
    state, kind = _outbox.c.state, (_outbox.c.model, _outbox.c.service_class)
    waits = state != "scheduled"
    rows = await connection.execute(
        select(
            *kind,
            _count(waits).label("jobs"),
            func.coalesce(func.sum(case((waits, _outbox.c.cost), else_=0)), 0).label("tokens"),
            _count(state == "released").label("released"),
            _count(state == "scheduled").label("scheduled"),
            func.min(case((waits, _outbox.c.created_at))).label("oldest"),
            func.min(case((state == "waiting", _outbox.c.created_at))).label("oldest_unreleased"),
        )
        .group_by(*kind)
        .order_by(*kind)
    )
    return [_backlog(row) for row in rows]


async def loads(connection: AsyncConnection) -> list[TenantLoad]:
    """Tenants with anything queued or running, the largest queue first."""
    waiting = (
        select(
            _outbox.c.tenant_id,
            func.count().label("jobs"),
            func.sum(_outbox.c.cost).label("tokens"),
            func.min(_outbox.c.created_at).label("oldest"),
        )
        .where(_outbox.c.state != "scheduled")
        .group_by(_outbox.c.tenant_id)
        .subquery()
    )
    running = (
        select(_jobs.c.tenant_id, func.count().label("jobs"))
        .join(_leases, _leases.c.job_id == _jobs.c.id)
        .group_by(_jobs.c.tenant_id)
        .subquery()
    )
    rows = await connection.execute(
        select(
            _tenants.c.id,
            _tenants.c.name,
            func.coalesce(waiting.c.jobs, 0).label("waiting"),
            func.coalesce(waiting.c.tokens, 0).label("tokens"),
            func.coalesce(running.c.jobs, 0).label("running"),
            waiting.c.oldest,
        )
        .outerjoin(waiting, waiting.c.tenant_id == _tenants.c.id)
        .outerjoin(running, running.c.tenant_id == _tenants.c.id)
        .where(waiting.c.jobs.is_not(None) | running.c.jobs.is_not(None))
        .order_by(func.coalesce(waiting.c.tokens, 0).desc(), _tenants.c.name)
    )
    return [
        TenantLoad(row.id, row.name, int(row.waiting), int(row.tokens), int(row.running), row.oldest)
        for row in rows
    ]


def _backlog(row: Any) -> Backlog:
    # PostgreSQL sums whole numbers to decimals.
    return Backlog(
        model=row.model,
        service_class=row.service_class,
        jobs=int(row.jobs),
        tokens=int(row.tokens),
        released=int(row.released),
        scheduled=int(row.scheduled),
        oldest=row.oldest,
        oldest_unreleased=row.oldest_unreleased,
    )


async def _running(connection: AsyncConnection) -> tuple[dict[str, int], int]:
    """Running jobs by model, and how many leases ran out and were not reaped yet."""
    rows = await connection.execute(
        select(_jobs.c.model, func.count(), _count(_leases.c.expires_at < Now()))
        .join(_leases, _leases.c.job_id == _jobs.c.id)
        .group_by(_jobs.c.model)
    )
    found = [(model, int(jobs), int(overdue)) for model, jobs, overdue in rows]
    return {model: jobs for model, jobs, _ in found}, sum(overdue for _, _, overdue in found)


async def _open_deliveries(connection: AsyncConnection) -> Deliveries:
    is_open = _deliveries.c.state.in_(["pending", "delivering"])
    due = case((_deliveries.c.due_at <= Now(), _deliveries.c.due_at))
    row = (await connection.execute(select(func.count(), func.min(due)).where(is_open))).one()
    return Deliveries(int(row[0]), row[1])


async def _open_batches(connection: AsyncConnection) -> OpenBatches:
    """What ended since the sums were last written down, seconds ago, is not counted yet."""
    left = _batches.c.total - _batches.c.completed - _batches.c.failed
    rows = await connection.execute(
        select(_batches.c.status, func.count(), func.sum(left))
        .where(_batches.c.finished_at.is_(None))
        .group_by(_batches.c.status)
    )
    found = [(status, int(count), int(lines)) for status, count, lines in rows]
    return OpenBatches({status: count for status, count, _ in found}, sum(lines for *_, lines in found))


async def _open_dead_letters(connection: AsyncConnection) -> int:
    statement = select(func.count()).where(_dead.c.requeued_as.is_(None), _dead.c.discarded_at.is_(None))
    return int((await connection.execute(statement)).scalar_one())


def _count(condition: Any) -> Any:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)
