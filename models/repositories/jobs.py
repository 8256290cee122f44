"""Reading jobs, and what their owners may change: every statement is scoped to a tenant."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import JSON, Select, Table, Text, case, delete, func, literal, null, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Database, Now
from models.lifecycle import TERMINAL, Status
from models.membership import Among
from models.repositories import changes, outbox, webhook_events
from models.repositories.execution import put_in_outbox
from models.repositories.results import record_results
from models.repositories.submission import IDEMPOTENCY_LIFETIME
from models.tables import Feedback, IdempotencyKey, Job, JobTag, Lease, Payload, Result
from models.views import JobView, webhook_view
from models.webhook_tables import WebhookDelivery

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_payloads: Final[Table] = Payload.__table__  # type: ignore[assignment]
_results: Final[Table] = Result.__table__  # type: ignore[assignment]
_leases: Final[Table] = Lease.__table__  # type: ignore[assignment]
_tags: Final[Table] = JobTag.__table__  # type: ignore[assignment]
_keys: Final[Table] = IdempotencyKey.__table__  # type: ignore[assignment]
_feedback: Final[Table] = Feedback.__table__  # type: ignore[assignment]
_deliveries: Final[Table] = WebhookDelivery.__table__  # type: ignore[assignment]

_VIEW: Final = [
    _jobs.c.id,
    _jobs.c.tenant_id,
    _jobs.c.model,
    _jobs.c.service_class,
    _jobs.c.priority,
    _jobs.c.status,
    _jobs.c.version,
    _jobs.c.created_at,
    _jobs.c.generation,
    _jobs.c.attempt,
    _jobs.c.excused,
    _jobs.c.started_at,
    _jobs.c.finished_at,
    _jobs.c.deadline,
    _results.c.expires_at,
    _jobs.c.worker,
    _jobs.c.batch_id,
    _jobs.c.retry_of,
    _jobs.c.follow_up,
    _jobs.c.follow_up_of,
    _results.c.output,
    _results.c.usage,
    _results.c.timings,
    _results.c.error,
    _payloads.c.metadata,
    _payloads.c.tags,
    _payloads.c.erased_at,
    _payloads.c.webhook,
    func.coalesce(_results.c.degradation, _jobs.c.degradation, type_=JSON).label("degradation"),
    _jobs.c.estimated_start_at,
    _deliveries.c.state.label("delivery_state"),
    _deliveries.c.attempts.label("delivery_attempts"),
    _deliveries.c.last_status.label("delivery_status"),
]


def _select_view() -> Select[Any]:
    # A job's own URL has one delivery; those of the tenant's endpoints are no part of the job.
    own = (_deliveries.c.job_id == _jobs.c.id) & _deliveries.c.endpoint_id.is_(None)
    joined = (
        _jobs.join(_payloads, _payloads.c.job_id == _jobs.c.id)
        .outerjoin(_results, _results.c.job_id == _jobs.c.id)
        .outerjoin(_deliveries, own)
    )
    return select(*_VIEW).select_from(joined)


def to_view(row: Any) -> JobView:
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
    values["status"] = Status(values["status"])
    delivery = [values.pop(name) for name in ("delivery_state", "delivery_attempts", "delivery_status")]
    values["webhook"] = webhook_view(values["webhook"], *delivery, is_over=values["status"] in TERMINAL)
    return JobView(**values)


async def read(connection: AsyncConnection, tenant_id: str, job_id: str) -> JobView | None:
    statement = _select_view().where(_jobs.c.id == job_id, _jobs.c.tenant_id == tenant_id)
    row = (await connection.execute(statement)).one_or_none()
    return to_view(row) if row else None


async def read_many(connection: AsyncConnection, tenant_id: str, job_ids: Sequence[str]) -> list[JobView]:
    """The tenant's own among `job_ids`, in no promised order."""
    statement = _select_view().where(Among(_jobs.c.id, job_ids), _jobs.c.tenant_id == tenant_id)
    return [to_view(row) for row in await connection.execute(statement)]


# Made once: every stream and every poll of an unfinished job begins with it.
_READING: Final = _select_view().where(Among.named(_jobs.c.id, "read_ids"))


async def read_any(connection: AsyncConnection, job_ids: Sequence[str]) -> list[JobView]:
    """Whoever's they are: for the platform itself, and for who compares the tenant of each."""
    rows = await connection.execute(_READING, {"read_ids": list(job_ids)})
    return [to_view(row) for row in rows]


async def read_request(connection: AsyncConnection, tenant_id: str, job_id: str) -> dict[str, Any] | None:
    """What was asked, as it was accepted; None where there is no such job or it was erased."""
    statement = (
        select(_payloads.c.request)
        .join(_jobs, _jobs.c.id == _payloads.c.job_id)
        .where(_jobs.c.id == job_id, _jobs.c.tenant_id == tenant_id, _payloads.c.erased_at.is_(None))
    )
    return (await connection.execute(statement)).scalar_one_or_none()


@dataclass(frozen=True, slots=True)
class Filter:
    """What `GET /v1/jobs` narrows by; None narrows nothing. `after` is the last id of the page before."""

    status: str | None = None
    model: str | None = None
    service_class: str | None = None
    batch_id: str | None = None
    tag: str | None = None
    after: str | None = None


async def page(
    connection: AsyncConnection, tenant_id: str, wanted: Filter, *, limit: int
) -> tuple[list[JobView], bool]:
    """Newest first, and whether there are more."""
    statement = _select_view().where(_jobs.c.tenant_id == tenant_id)
    for column, value in (
        (_jobs.c.status, wanted.status),
        (_jobs.c.model, wanted.model),
        (_jobs.c.service_class, wanted.service_class),
        (_jobs.c.batch_id, wanted.batch_id),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if wanted.tag is not None:
        tagged = select(_tags.c.job_id).where(_tags.c.tenant_id == tenant_id, _tags.c.tag == wanted.tag)
        statement = statement.where(_jobs.c.id.in_(tagged))
    if wanted.after is not None:
        statement = statement.where(_jobs.c.id < wanted.after)
    rows = (await connection.execute(statement.order_by(_jobs.c.id.desc()).limit(limit + 1))).all()
    return [to_view(row) for row in rows[:limit]], len(rows) > limit


async def find_in_flight(connection: AsyncConnection, tenant_id: str, fingerprint: str) -> str | None:
    """The newest unfinished job of the tenant that asked exactly this."""
    statement = (
        select(_jobs.c.id)
        .where(
            _jobs.c.tenant_id == tenant_id,
            _jobs.c.fingerprint == fingerprint,
            _jobs.c.status.in_([Status.QUEUED.value, Status.RUNNING.value]),
        )
        .order_by(_jobs.c.id.desc())
        .limit(1)
    )
    return (await connection.execute(statement)).scalar_one_or_none()


async def cancel(connection: AsyncConnection, tenant_id: str, job_id: str, *, expires_at: datetime) -> bool:
    """See `cancel_all`; True when that changed something."""
    return bool(await cancel_all(connection, tenant_id, [job_id], expires_at=expires_at))


async def cancel_all(
    connection: AsyncConnection, tenant_id: str, job_ids: Sequence[str], *, expires_at: datetime
) -> dict[str, Status]:
    """Cancels at once what is queued, asks the workers where it runs; what changed, and to what."""
    queued = _jobs.c.status == Status.QUEUED.value
    # One statement: between two, a job that is given back would be neither queued nor running.
    moved = await connection.execute(
        update(_jobs)
        .where(
            Among(_jobs.c.id, sorted(job_ids)),
            _jobs.c.tenant_id == tenant_id,
            _jobs.c.status.in_([Status.QUEUED.value, Status.RUNNING.value]),
        )
        .values(
            status=case((queued, Status.CANCELLED.value), else_=Status.CANCELLING.value),
            version=_jobs.c.version + 1,
            finished_at=case((queued, Now()), else_=null()),
        )
        .returning(_jobs.c.id, _jobs.c.status, _jobs.c.attempt)
    )
    rows = moved.all()
    asked = [row.id for row in rows if row.status == Status.CANCELLING.value]
    if asked:
        await connection.execute(
            update(_leases).where(Among(_leases.c.job_id, asked)).values(cancel_requested=True)
        )
        await changes.record(connection, asked, "cancel_requested")
    over = [row for row in rows if row.status == Status.CANCELLED.value]
    if over:
        results = [{"job_id": row.id, "attempt": row.attempt, "expires_at": expires_at} for row in over]
        await record_results(connection, results)
        await outbox.remove(connection, [row.id for row in over])
    return {row.id: Status(row.status) for row in rows}


@dataclass(frozen=True, slots=True)
class Change:
    """What PATCH changes while a job is queued. `None` keeps; a set flag beside a None value clears."""

    priority: int | None = None
    deadline: datetime | None = None
    sets_deadline: bool = False
    metadata: dict[str, Any] | None = None


async def change(
    database: Database, connection: AsyncConnection, tenant_id: str, job_id: str, wanted: Change
) -> bool:
    """False when the job is not queued (any more). A released job is released again as a new generation."""
    values: dict[str, Any] = {"version": _jobs.c.version + 1}
    if wanted.priority is not None:
        values["priority"] = wanted.priority
    if wanted.sets_deadline:
        values["deadline"] = wanted.deadline
    reorders = len(values) > 1
    if reorders:
        values["generation"] = _jobs.c.generation + 1
    changed = await connection.execute(
        update(_jobs)
        .where(_jobs.c.id == job_id, _jobs.c.tenant_id == tenant_id, _jobs.c.status == Status.QUEUED.value)
        .values(**values)
    )
    if not changed.rowcount:
        return False
    if wanted.metadata is not None:
        await connection.execute(
            update(_payloads).where(_payloads.c.job_id == job_id).values(metadata=wanted.metadata)
        )
    if reorders:
        await put_in_outbox(database, connection, [job_id])
    await changes.record(connection, [job_id], "changed")
    return True


async def erase(connection: AsyncConnection, tenant_id: str, job_id: str) -> bool:
    """Forgets prompt, answer, metadata and tags of a terminal job; False when it is not terminal."""
    terminal = select(_jobs.c.id).where(
        _jobs.c.id == job_id,
        _jobs.c.tenant_id == tenant_id,
        _jobs.c.status.in_([status.value for status in TERMINAL]),
    )
    erased = await connection.execute(
        update(_payloads)
        .where(_payloads.c.job_id.in_(terminal))
        .values(request={}, metadata={}, tags=[], trail=None, erased_at=Now())
    )
    if erased.rowcount:
        await connection.execute(delete(_tags).where(_tags.c.job_id == job_id))
        await connection.execute(update(_results).where(_results.c.job_id == job_id).values(output=None))
        await connection.execute(
            update(_jobs).where(_jobs.c.id == job_id).values(version=_jobs.c.version + 1, fingerprint="")
        )
        await changes.record(connection, [job_id], "erased")
        await webhook_events.erase(connection, job_id)
    return bool(erased.rowcount)


async def give_feedback(
    database: Database,
    connection: AsyncConnection,
    tenant_id: str,
    job_id: str,
    *,
    score: int,
    comment: str | None,
) -> None:
    """The last word counts; nothing happens where the tenant has no such job. The caller checks its end."""
    mine = select(_jobs.c.id, literal(score), literal(comment, Text), Now()).where(
        _jobs.c.id == job_id, _jobs.c.tenant_id == tenant_id
    )
    names = ["job_id", "score", "comment", "created_at"]
    statement = database.insert(_feedback).from_select(names, mine)
    new = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["job_id"],
            set_={"score": new.score, "comment": new.comment, "created_at": new.created_at},
        )
    )


async def expire(connection: AsyncConnection, *, keep: timedelta, limit: int) -> list[str]:
    """Queued jobs whose longest wait or deadline has passed, by the database's clock, become `expired`."""
    # Apart: as a subquery it ran for every queued job, and read the outbox each time, where PostgreSQL had no
    # statistics yet: a batch of 8,000 lines made it read 109 million rows.
    late = list((await connection.execute(outbox.late(limit=limit))).scalars())
    if not late:
        return []
    expired = await connection.execute(
        update(_jobs)
        # Not RUNNING: a worker may claim the job while this statement waits for it.
        .where(Among(_jobs.c.id, late), _jobs.c.status == Status.QUEUED.value)
        .values(status=Status.EXPIRED.value, version=_jobs.c.version + 1, finished_at=Now())
        .returning(_jobs.c.id, _jobs.c.attempt, _jobs.c.queue_deadline, _jobs.c.deadline)
    )
    rows = expired.all()
    await _record_expiry(connection, rows, keep)
    return [row.id for row in rows]


async def _record_expiry(connection: AsyncConnection, rows: Sequence[Any], keep: timedelta) -> None:
    if not rows:
        return
    now = (await connection.execute(select(Now()))).scalar_one()
    results = [
        {"job_id": row.id, "attempt": row.attempt, "error": _lateness(row, now), "expires_at": now + keep}
        for row in rows
    ]
    await record_results(connection, results)
    await outbox.remove(connection, [row.id for row in rows])


def _lateness(row: Any, now: datetime) -> dict[str, str]:
    if row.queue_deadline is not None and row.queue_deadline <= now:
        return {"code": "queue_timeout", "message": "the job waited longer than its max_wait_ms"}
    return {"code": "deadline_exceeded", "message": "the deadline passed before the job started"}


async def _leave_tombstones(connection: AsyncConnection, *, limit: int) -> None:
    """An idempotency key that is still good must find its job: it is erased now, and deleted a day later."""
    keyed = select(_keys.c.job_id).where(_keys.c.expires_at > Now())
    over = (
        select(_results.c.job_id)
        .where(_results.c.expires_at <= Now(), _results.c.job_id.in_(keyed))
        .limit(limit)
    )
    kept = await connection.execute(
        update(_results)
        .where(_results.c.job_id.in_(over))
        .values(output=None, expires_at=Now(IDEMPOTENCY_LIFETIME))
        .returning(_results.c.job_id)
    )
    job_ids = list(kept.scalars())
    if job_ids:
        await connection.execute(
            update(_payloads)
            .where(_payloads.c.job_id.in_(job_ids))
            .values(request={}, metadata={}, tags=[], trail=None, erased_at=Now())
        )
        await connection.execute(delete(_tags).where(_tags.c.job_id.in_(job_ids)))


async def forget(connection: AsyncConnection, *, limit: int) -> int:
    """Deletes finished jobs whose time to be kept is over, and keys whose day is; the number of jobs."""
    await _leave_tombstones(connection, limit=limit)
    over = select(_results.c.job_id).where(_results.c.expires_at <= Now()).limit(limit)
    gone = await connection.execute(delete(_jobs).where(_jobs.c.id.in_(over)).returning(_jobs.c.id))
    job_ids = list(gone.scalars())
    await changes.forget(connection, job_ids)
    await connection.execute(delete(_keys).where(_keys.c.expires_at <= Now()))
    await webhook_events.forget(connection, limit=limit)
    return len(job_ids)
