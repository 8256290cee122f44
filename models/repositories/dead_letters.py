"""Jobs whose attempts are used up: kept in sight until somebody sends them again or lets them be."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Select, Table, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Now
from models.tables import DeadLetter, Job, Payload, Result

if TYPE_CHECKING:
    from models.repositories.submission import NewJob

CODE: Final = "attempts_exhausted"

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_payloads: Final[Table] = Payload.__table__  # type: ignore[assignment]
_results: Final[Table] = Result.__table__  # type: ignore[assignment]
_dead: Final[Table] = DeadLetter.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter of any tenant, without what was asked."""

    job_id: str
    tenant_id: str
    model: str
    service_class: str
    attempt: int
    worker: str | None
    created_at: datetime
    died_at: datetime
    error: dict[str, Any] | None
    requeued_as: str | None
    discarded_at: datetime | None


async def note(connection: AsyncConnection, job_ids: Sequence[str]) -> None:
    """For jobs that this transaction lets fail with `CODE`."""
    if job_ids:
        rows = select(_jobs.c.id, Now()).where(_jobs.c.id.in_(job_ids))
        await connection.execute(insert(_dead).from_select(["job_id", "died_at"], rows))


def _letters() -> Select[Any]:
    return (
        select(
            _dead.c.job_id,
            _jobs.c.tenant_id,
            _jobs.c.model,
            _jobs.c.service_class,
            _jobs.c.attempt,
            _jobs.c.worker,
            _jobs.c.created_at,
            _dead.c.died_at,
            _results.c.error,
            _dead.c.requeued_as,
            _dead.c.discarded_at,
        )
        .join(_jobs, _jobs.c.id == _dead.c.job_id)
        .join(_results, _results.c.job_id == _dead.c.job_id)
    )


async def page(
    connection: AsyncConnection, *, settled: bool, after: str | None, limit: int
) -> tuple[list[Letter], bool]:
    """The newest first, and whether there are more; those already sent again or discarded if `settled`."""
    statement = _letters()
    if not settled:
        statement = statement.where(_dead.c.requeued_as.is_(None), _dead.c.discarded_at.is_(None))
    if after is not None:
        statement = statement.where(_dead.c.job_id < after)
    rows = (await connection.execute(statement.order_by(_dead.c.job_id.desc()).limit(limit + 1))).all()
    return [Letter(*row) for row in rows[:limit]], len(rows) > limit


async def read(connection: AsyncConnection, job_id: str) -> Letter | None:
    row = (await connection.execute(_letters().where(_dead.c.job_id == job_id))).one_or_none()
    return Letter(*row) if row else None


async def discard(connection: AsyncConnection, job_id: str) -> bool:
    """Out of the list of what is open; the job itself stays. False where it was settled before."""
    done = await connection.execute(_open(job_id).values(discarded_at=Now()))
    return bool(done.rowcount)


async def requeue(connection: AsyncConnection, job_id: str, *, new_id: str, at: datetime) -> "NewJob | None":
    """The job that asks the same for the same tenant, to be submitted in this transaction.

    None where it was settled before or its prompt was erased. Times are left out: they have passed.
    """
    rows = await connection.execute(
        select(_jobs, *(_payloads.c[name] for name in ("request", "metadata", "tags", "webhook", "trail")))
        .join(_payloads, _payloads.c.job_id == _jobs.c.id)
        .where(_jobs.c.id == job_id, _payloads.c.erased_at.is_(None))
    )
    row = rows.one_or_none()
    if (
        row is None
        or not (await connection.execute(_open(job_id).values(requeued_as=literal(new_id)))).rowcount
    ):
        return None
    from models.repositories.submission import NewJob  # it records results, which note dead letters

    return NewJob(
        id=new_id,
        tenant_id=row.tenant_id,
        model=row.model,
        service_class=row.service_class,
        priority=row.priority,
        cost=row.cost,
        fingerprint=row.fingerprint,
        request=row.request,
        created_at=at,
        prefix=row.prefix,
        prefix_tokens=row.prefix_tokens,
        trail=row.trail,
        retry_of=job_id,
        metadata=row.metadata,
        tags=tuple(row.tags),
        webhook=row.webhook,
    )


def _open(job_id: str) -> Any:
    return update(_dead).where(
        _dead.c.job_id == job_id, _dead.c.requeued_as.is_(None), _dead.c.discarded_at.is_(None)
    )
