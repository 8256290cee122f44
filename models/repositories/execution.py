"""Claims, leases and the end of jobs: the statements that make a job run once for all to see."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Delete,
    FromClause,
    Insert,
    Select,
    Table,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    null,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningUpdate

from models.dialect import Database, Now, skip_locked, writes_in_with
from models.lifecycle import Status
from models.membership import Among, PairAmong, named_pairs
from models.repositories import changes, outbox
from models.repositories.results import record_results
from models.repositories.settling import from_running, settle_at_once
from models.tables import Job, Lease, Outbox, Payload, Tenant
from models.views import JobView, webhook_view

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_payloads: Final[Table] = Payload.__table__  # type: ignore[assignment]
_leases: Final[Table] = Lease.__table__  # type: ignore[assignment]
_outbox: Final[Table] = Outbox.__table__  # type: ignore[assignment]
_tenants: Final[Table] = Tenant.__table__  # type: ignore[assignment]

# Rows of results by the status that they end in; (id, attempt) → (version, finished_at).
_Groups = Mapping[Status, Sequence[dict[str, Any]]]
_Settled = dict[tuple[str, int], tuple[int, datetime]]


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this worker now runs. `view.attempt` is the fencing token, `cost` is in tokens.

    `strikes` counts the attempts under which an engine died or hung. `is_private`: its tenant shares nothing
    in an engine's prefix cache.
    """

    view: JobView
    request: dict[str, Any]
    result_ttl: timedelta | None
    cost: int
    strikes: int = 0
    is_private: bool = False


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended: one terminal status, and what the job's readers are told."""

    job_id: str
    attempt: int
    status: Status
    expires_at: datetime
    output: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    degradation: dict[str, Any] | None = None


async def claim(
    connection: AsyncConnection, wanted: Sequence[tuple[str, int]], *, worker: str, lease: timedelta
) -> list[Claim]:
    """Takes the `(job id, generation)` pairs that are still queued and in time, under a new lease.

    What is missing from the answer was cancelled, expired, claimed before or re-released: drop it.
    """
    if writes_in_with(connection):
        named = named_pairs("claimed", wanted) | {"claiming_worker": worker}
        return [_to_claim(row, row) for row in await connection.execute(_claiming(lease), named)]
    taking = _taking(PairAmong(_jobs.c.id, _jobs.c.generation, wanted), worker=literal(worker))
    rows = {row.id: row for row in await connection.execute(taking)}
    if not rows:
        return []
    moved = select(_jobs).where(Among(_jobs.c.id, list(rows))).subquery("moved")
    for following in _following(moved, worker=literal(worker), lease=lease):
        await connection.execute(following)
    payloads = await connection.execute(
        select(_payloads, _tenants.c.private_prefixes)
        .join(_jobs, _jobs.c.id == _payloads.c.job_id)
        .outerjoin(_tenants, _tenants.c.id == _jobs.c.tenant_id)
        .where(Among(_payloads.c.job_id, list(rows)))
    )
    return [_to_claim(rows[payload.job_id], payload) for payload in payloads]


def _taking(wanted: PairAmong, *, worker: ColumnElement[str]) -> ReturningUpdate[Any]:
    in_time = (_jobs.c.deadline.is_(None) | (_jobs.c.deadline > Now())) & (
        _jobs.c.queue_deadline.is_(None) | (_jobs.c.queue_deadline > Now())
    )
    return (
        update(_jobs)
        .where(wanted, _jobs.c.status == Status.QUEUED.value, in_time)
        .values(
            status=Status.RUNNING.value,
            version=_jobs.c.version + 1,
            attempt=_jobs.c.attempt + 1,
            started_at=func.coalesce(_jobs.c.started_at, Now()),
            worker=worker,
        )
        .returning(*_jobs.c)
    )


@cache
def _claiming(lease: timedelta) -> Select[Any]:
    """In one round trip where five were: a claim is on the way of every first token.

    Made once: to put it together takes a worker's loop 4 ms, and to send it a tenth of that.
    """
    worker: ColumnElement[str] = bindparam("claiming_worker", type_=_jobs.c.worker.type)
    taking = _taking(PairAmong.named(_jobs.c.id, _jobs.c.generation, "claimed"), worker=worker)
    moved = taking.cte("moved")
    following = [statement.cte() for statement in _following(moved, worker=worker, lease=lease)]
    return (
        select(moved, _payloads, _tenants.c.private_prefixes)
        .join(_payloads, _payloads.c.job_id == moved.c.id)
        .outerjoin(_tenants, _tenants.c.id == moved.c.tenant_id)
        .add_cte(*following)
    )


def _following(
    moved: FromClause, *, worker: ColumnElement[str], lease: timedelta
) -> tuple[Insert | Delete, ...]:
    """What a claim entails: its lease, its end of waiting, its place in the timeline."""
    leased = select(moved.c.id, moved.c.attempt, worker, Now(lease), literal(False))
    columns = ["job_id", "attempt", "worker", "expires_at", "cancel_requested"]
    return (
        insert(_leases).from_select(columns, leased),
        delete(_outbox).where(_outbox.c.job_id.in_(select(moved.c.id))),
        changes.noting(moved),
    )


def _to_claim(row: Any, payload: Any) -> Claim:
    view = JobView(
        id=row.id,
        tenant_id=row.tenant_id,
        model=row.model,
        service_class=row.service_class,
        priority=row.priority,
        status=Status(row.status),
        version=row.version,
        created_at=row.created_at,
        generation=row.generation,
        attempt=row.attempt,
        excused=row.excused,
        started_at=row.started_at,
        deadline=row.deadline,
        worker=row.worker,
        batch_id=row.batch_id,
        retry_of=row.retry_of,
        follow_up=row.follow_up,
        follow_up_of=row.follow_up_of,
        metadata=payload.metadata,
        tags=payload.tags,
        webhook=webhook_view(payload.webhook),
        degradation=row.degradation,
        estimated_start_at=row.estimated_start_at,
    )
    ttl = None if payload.result_ttl is None else timedelta(seconds=payload.result_ttl)
    is_private = bool(payload.private_prefixes)
    return Claim(view, payload.request, ttl, row.cost, row.strikes, is_private)


async def settle(connection: AsyncConnection, endings: Sequence[Ending]) -> _Settled:
    """Records each ending whose attempt still owns its job: (id, attempt) → (version, finished_at).

    An attempt that is missing was fenced off: another one owns the job, and the ending must be discarded.
    """
    by_status: defaultdict[Status, dict[tuple[str, int], Ending]] = defaultdict(dict)
    for ending in endings:
        by_status[ending.status][ending.job_id, ending.attempt] = ending
    # One order of locks for all workers.
    groups = {
        status: [_result_row(ending) for _, ending in sorted(by_status[status].items(), key=lambda e: e[0])]
        for status in sorted(by_status)
    }
    settle_all = _settle_at_once if writes_in_with(connection) else _settle_step_by_step
    return await settle_all(connection, groups)


async def _settle_at_once(connection: AsyncConnection, groups: _Groups) -> _Settled:
    moved = await settle_at_once(connection, groups)
    return {(job.id, job.attempt): (job.version, job.finished_at) for job in moved}


async def _settle_step_by_step(connection: AsyncConnection, groups: _Groups) -> _Settled:
    settled: _Settled = {}
    won: list[dict[str, Any]] = []
    for status, rows in groups.items():
        moved = await _move(connection, status, rows)
        won += [row for row in rows if (row["job_id"], row["attempt"]) in moved]
        settled |= moved
    if won:
        await record_results(connection, won)
        await _drop_leases(connection, list(settled))
    return settled


async def _drop_leases(connection: AsyncConnection, attempts: Sequence[tuple[str, int]]) -> None:
    await connection.execute(delete(_leases).where(PairAmong(_leases.c.job_id, _leases.c.attempt, attempts)))


async def _move(connection: AsyncConnection, status: Status, rows: Sequence[dict[str, Any]]) -> _Settled:
    moved = await connection.execute(
        update(_jobs)
        .where(
            PairAmong(_jobs.c.id, _jobs.c.attempt, [(row["job_id"], row["attempt"]) for row in rows]),
            _jobs.c.status.in_(from_running(status)),
        )
        .values(status=status.value, version=_jobs.c.version + 1, finished_at=Now())
        .returning(_jobs.c.id, _jobs.c.attempt, _jobs.c.version, _jobs.c.finished_at)
    )
    return {(row.id, row.attempt): (row.version, row.finished_at) for row in moved}


def _result_row(ending: Ending) -> dict[str, Any]:
    return {
        "job_id": ending.job_id,
        "attempt": ending.attempt,
        "output": ending.output,
        "usage": ending.usage,
        "timings": ending.timings,
        "error": ending.error,
        "degradation": ending.degradation,
        "expires_at": ending.expires_at,
    }


async def give_back(
    database: Database,
    connection: AsyncConnection,
    attempts: Sequence[tuple[str, int]],
    *,
    excused: bool,
    struck: bool = False,
    reason: str | None = None,
    delay: timedelta = timedelta(),
) -> list[str]:
    """Running `(job id, attempt)` pairs wait again under a new generation; the ids that did.

    `excused` does not count the attempt: the worker drains, or never handed the job to its engine.
    `struck` says that the engine died or hung under it; `reason` goes into the timeline.
    """
    returned = await connection.execute(
        update(_jobs)
        .where(PairAmong(_jobs.c.id, _jobs.c.attempt, attempts), _jobs.c.status == Status.RUNNING.value)
        .values(
            status=Status.QUEUED.value,
            version=_jobs.c.version + 1,
            generation=_jobs.c.generation + 1,
            excused=_jobs.c.excused + (1 if excused else 0),
            strikes=_jobs.c.strikes + (1 if struck else 0),
        )
        .returning(_jobs.c.id, _jobs.c.attempt)
    )
    given = [(row.id, row.attempt) for row in returned]
    ids = [job_id for job_id, _ in given]
    if given:
        await put_in_outbox(database, connection, ids, delay=delay)
        await changes.record(connection, ids, reason)
        # Not those of `attempts` that stay: a job that is being cancelled needs its lease for the reaper.
        await _drop_leases(connection, given)
    return ids


async def put_in_outbox(
    database: Database, connection: AsyncConnection, job_ids: Sequence[str], *, delay: timedelta = timedelta()
) -> None:
    """Queued jobs wait for the relay, as their rows in `jobs` now stand."""
    columns = _outbox.c
    due = Now(delay) if delay else _jobs.c.not_before
    scheduled = due > Now()
    fresh = select(
        _jobs.c.id,
        _jobs.c.generation,
        case((scheduled, "scheduled"), else_="waiting"),
        _jobs.c.model
        + outbox.SEPARATOR
        + _jobs.c.service_class
        + outbox.SEPARATOR
        + _jobs.c.tenant_id
        + case((_jobs.c.batch_id.is_not(None), outbox.SEPARATOR + _jobs.c.batch_id), else_=""),
        _jobs.c.model,
        _jobs.c.service_class,
        _jobs.c.tenant_id,
        _jobs.c.batch_id,
        9 - _jobs.c.priority,
        _jobs.c.cost,
        _jobs.c.prefix,
        _jobs.c.prefix_tokens,
        _jobs.c.created_at,
        _jobs.c.deadline,
        case(
            (_jobs.c.deadline < _jobs.c.queue_deadline, _jobs.c.deadline),
            else_=func.coalesce(_jobs.c.queue_deadline, _jobs.c.deadline),
        ),
        case((scheduled, due), else_=null()),
        null(),
        _jobs.c.attempt - _jobs.c.excused,
        _jobs.c.strikes,
        _jobs.c.trace,
        select(_payloads.c.trail).where(_payloads.c.job_id == _jobs.c.id).scalar_subquery(),
    ).where(Among(_jobs.c.id, job_ids))
    statement = database.insert(_outbox).from_select([column.name for column in columns], fresh)
    new = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["job_id"],
            set_={column.name: new[column.name] for column in columns if column.name != "job_id"},
        )
    )


@dataclass(frozen=True, slots=True)
class HeldLease:
    job_id: str
    attempt: int
    cancel_requested: bool


async def extend_leases(
    connection: AsyncConnection, job_ids: Sequence[str], *, worker: str, lease: timedelta
) -> list[HeldLease]:
    """What a worker still runs, in one statement. What is missing was lost; what is flagged was cancelled.

    Not all of its leases: one whose claim was committed while its answer was lost is nobody's, and one whose
    run ended without an ending is over. Both must run out.
    """
    rows = await connection.execute(
        update(_leases)
        .where(_leases.c.worker == worker, Among(_leases.c.job_id, job_ids))
        .values(expires_at=Now(lease))
        .returning(_leases.c.job_id, _leases.c.attempt, _leases.c.cancel_requested)
    )
    return [HeldLease(row.job_id, row.attempt, row.cancel_requested) for row in rows]


async def void_leases(connection: AsyncConnection) -> None:
    """For a process that was the only worker and starts again: what it held then, it lost."""
    await connection.execute(update(_leases).values(expires_at=Now()))


@dataclass(frozen=True, slots=True)
class LostLease:
    job_id: str
    attempt: int
    excused: int
    status: Status
    worker: str


async def expired_leases(connection: AsyncConnection, *, limit: int) -> list[LostLease]:
    """Leases that ran out, locked for the reaper with their jobs; two reapers never see the same one.

    Whoever ends or cancels a job locks the job before its lease. So a job that somebody holds is passed
    over: to wait for it while holding its lease would be a deadlock.
    """
    statement = skip_locked(
        select(_leases.c.job_id, _leases.c.attempt, _jobs.c.excused, _jobs.c.status, _leases.c.worker)
        .join(_jobs, _jobs.c.id == _leases.c.job_id)
        .where(_leases.c.expires_at <= Now())
        .order_by(_leases.c.job_id)
        .limit(limit)
    )
    return [
        LostLease(row.job_id, row.attempt, row.excused, Status(row.status), row.worker)
        for row in await connection.execute(statement)
    ]
