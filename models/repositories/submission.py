"""Accepting jobs: one group of submissions in a handful of multi-row statements."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

from sqlalchemy import Table, delete, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from models import dialect
from models.degradation import Degradation, Terms, terms
from models.dialect import Database, Now, insert_together
from models.lifecycle import Status
from models.repositories import crowds
from models.repositories.outbox import lane
from models.repositories.results import record_results
from models.tables import IdempotencyKey, Job, JobTag, Outbox, Payload

IDEMPOTENCY_LIFETIME: Final = timedelta(hours=24)
FIRST_VERSION: Final = 1
READY_TIMINGS: Final = {"queue_ms": 0.0, "run_ms": 0.0}


@dataclass(frozen=True, slots=True)
class ReadyAnswer:
    """An answer that needs no GPU, with the label that says where it comes from (None: what was asked)."""

    output: dict[str, Any]
    usage: dict[str, Any]
    expires_at: datetime
    degradation: Degradation | None = None


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job that passed every check. Times are UTC; `cost` and `prefix_tokens` are in tokens."""

    id: str
    tenant_id: str
    model: str
    service_class: str
    priority: int
    cost: int
    fingerprint: str
    request: dict[str, Any]
    created_at: datetime
    prefix: str | None = None
    prefix_tokens: int = 0
    trail: str | None = None
    not_before: datetime | None = None
    deadline: datetime | None = None
    queue_deadline: datetime | None = None
    result_ttl: timedelta | None = None
    retry_of: str | None = None
    batch_id: str | None = None
    batch_line: int | None = None
    custom_id: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    webhook: dict[str, Any] | None = None
    key_id: str | None = None
    # The most jobs that its tenant, and its key, may have unfinished; 0 is no bound.
    most_of_tenant: int = 0
    most_of_key: int = 0
    trace: str | None = None  # W3C traceparent
    degradation: Degradation | None = None
    estimated_start_at: datetime | None = None
    follow_up: str | None = None  # the job that gives the full answer later
    follow_up_of: str | None = None  # this one waits until its model is calm
    companion: "NewJob | None" = None  # inserted in the same transaction
    answer: ReadyAnswer | None = None  # the job is born completed, and never waits

    @property
    def terms(self) -> Terms:
        return terms(self.request, service_class=self.service_class, batch_id=self.batch_id)


async def find_by_key(connection: AsyncConnection, tenant_id: str, key: str) -> tuple[str, str] | None:
    """The job and the fingerprint that a good idempotency key belongs to."""
    table = _table(IdempotencyKey)
    found = await connection.execute(
        select(table.c.job_id, table.c.fingerprint).where(
            table.c.tenant_id == tenant_id, table.c.key == key, table.c.expires_at >= Now()
        )
    )
    row = found.one_or_none()
    return (row.job_id, row.fingerprint) if row is not None else None


async def free_key(connection: AsyncConnection, tenant_id: str, key: str, *, job_id: str) -> None:
    """The next request under this key is a first one, where the key still is that job's."""
    table = _table(IdempotencyKey)
    await connection.execute(
        delete(table).where(table.c.tenant_id == tenant_id, table.c.key == key, table.c.job_id == job_id)
    )


class Reception(StrEnum):
    CREATED = "created"
    REPLAYED = "replayed"
    MISMATCH = "mismatch"
    CROWDED = "crowded"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a submission; `job_id` is the first job's where the key was known already."""

    reception: Reception
    job_id: str


class Keyed(Protocol):
    """What may be made once per idempotency key: a job, or a batch."""

    @property
    def id(self) -> str: ...
    @property
    def tenant_id(self) -> str: ...
    @property
    def idempotency_key(self) -> str | None: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...


def is_one_statement(jobs: Sequence[NewJob]) -> bool:
    """Whether `accept` asks PostgreSQL no more than once, so that no transaction need be opened for it."""
    return not any(
        job.idempotency_key or job.most_of_tenant or job.most_of_key or job.answer or job.tags
        for job in (*jobs, *(job.companion for job in jobs if job.companion))
    )


async def accept(database: Database, connection: AsyncConnection, jobs: Sequence[NewJob]) -> list[Receipt]:
    """Inserts the jobs of one group, each once per idempotency key. Order is kept."""
    known = await reserve_keys(database, connection, [job for job in jobs if job.idempotency_key])
    receipts = [receipt_of(job, known) for job in jobs]
    created = [
        job for job, receipt in zip(jobs, receipts, strict=True) if receipt.reception is Reception.CREATED
    ]
    refused = await crowds.too_many(connection, [job for job in created if job.answer is None])
    accepted = [job for job in created if job.id not in refused]
    await insert_jobs(connection, accepted + [job.companion for job in accepted if job.companion])
    return [
        Receipt(Reception.CROWDED, receipt.job_id) if receipt.job_id in refused else receipt
        for receipt in receipts
    ]


def receipt_of(job: Keyed, known: dict[tuple[str, str], tuple[str, str]]) -> Receipt:
    if job.idempotency_key is None:
        return Receipt(Reception.CREATED, job.id)
    job_id, fingerprint = known[job.tenant_id, job.idempotency_key]
    if job_id == job.id:
        return Receipt(Reception.CREATED, job.id)
    reception = Reception.REPLAYED if fingerprint == job.fingerprint else Reception.MISMATCH
    return Receipt(reception, job_id)


async def reserve_keys(
    database: Database, connection: AsyncConnection, jobs: Sequence[Keyed]
) -> dict[tuple[str, str], tuple[str, str]]:
    """The job and fingerprint that own each key: ours where the key was free or had expired."""
    if not jobs:
        return {}
    first: dict[tuple[str, str], Keyed] = {}
    for job in jobs:
        first.setdefault((job.tenant_id, job.idempotency_key or ""), job)
    table = _table(IdempotencyKey)
    statement = database.insert(table).values(
        [
            {
                "tenant_id": tenant_id,
                "key": key,
                "fingerprint": job.fingerprint,
                "job_id": job.id,
                "expires_at": job.created_at + IDEMPOTENCY_LIFETIME,
            }
            # One order of locks for all, or two groups that share two keys deadlock.
            for (tenant_id, key), job in sorted(first.items(), key=lambda item: item[0])
        ]
    )
    new = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["tenant_id", "key"],
            set_={"fingerprint": new.fingerprint, "job_id": new.job_id, "expires_at": new.expires_at},
            where=table.c.expires_at < Now(),
        )
    )
    rows = await connection.execute(
        select(table.c.tenant_id, table.c.key, table.c.job_id, table.c.fingerprint).where(
            tuple_(table.c.tenant_id, table.c.key).in_(list(first))
        )
    )
    return {(row.tenant_id, row.key): (row.job_id, row.fingerprint) for row in rows}


async def insert_jobs(connection: AsyncConnection, jobs: Sequence[NewJob]) -> None:
    if not jobs:
        return
    await insert_together(
        connection,
        [
            (_table(Job), [_job_row(job) for job in jobs]),
            (_table(Payload), [_payload_row(job) for job in jobs]),
            (_table(Outbox), [_outbox_row(job) for job in jobs if job.answer is None]),
        ],
    )
    if answered := [_result_row(job, job.answer) for job in jobs if job.answer is not None]:
        await record_results(connection, answered)
    tags = [
        {"tenant_id": job.tenant_id, "tag": tag, "job_id": job.id} for job in jobs for tag in set(job.tags)
    ]
    if tags:
        await connection.execute(insert(_table(JobTag)), tags)


async def refresh_statistics(connection: AsyncConnection) -> None:
    """Of what `insert_jobs` fills."""
    await dialect.refresh_statistics(connection, _table(Job), _table(Payload), _table(Outbox))


def _table(entity: type[Any]) -> Table:
    table: Table = entity.__table__
    return table


def _job_row(job: NewJob) -> dict[str, Any]:
    return {
        "id": job.id,
        "tenant_id": job.tenant_id,
        "model": job.model,
        "service_class": job.service_class,
        "priority": job.priority,
        "status": (Status.COMPLETED if job.answer else Status.QUEUED).value,
        "version": FIRST_VERSION + (job.answer is not None),
        "generation": 0,
        "attempt": 0,
        "excused": 0,
        "cost": job.cost,
        "prefix": job.prefix,
        "prefix_tokens": job.prefix_tokens,
        "created_at": job.created_at,
        "not_before": job.not_before,
        "deadline": job.deadline,
        "queue_deadline": job.queue_deadline,
        "batch_id": job.batch_id,
        "batch_line": job.batch_line,
        "retry_of": job.retry_of,
        "fingerprint": job.fingerprint,
        "key_id": job.key_id,
        "follow_up": job.follow_up,
        "follow_up_of": job.follow_up_of,
        "trace": job.trace,
        "degradation": job.degradation.document() if job.degradation else None,
        "estimated_start_at": job.estimated_start_at,
        "finished_at": job.created_at if job.answer else None,
    }


def _result_row(job: NewJob, answer: ReadyAnswer) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "attempt": 0,
        "output": answer.output,
        "usage": answer.usage,
        "timings": READY_TIMINGS,
        "error": None,
        "degradation": answer.degradation.document() if answer.degradation else None,
        "expires_at": answer.expires_at,
    }


def _payload_row(job: NewJob) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "request": job.request,
        "metadata": job.metadata,
        "tags": list(job.tags),
        "result_ttl": int(job.result_ttl.total_seconds()) if job.result_ttl else None,
        "webhook": job.webhook,
        "custom_id": job.custom_id,
        "trail": job.trail,
    }


def _outbox_row(job: NewJob) -> dict[str, Any]:
    starts = job.not_before if job.not_before and job.not_before > job.created_at else None
    # A follow-up waits for calm, which has no time.
    scheduled = starts is not None or job.follow_up_of is not None
    return {
        "job_id": job.id,
        "generation": 0,
        "state": "scheduled" if scheduled else "waiting",
        "lane": lane(job.model, job.service_class, job.tenant_id, job.batch_id),
        "model": job.model,
        "service_class": job.service_class,
        "tenant_id": job.tenant_id,
        "batch_id": job.batch_id,
        "rank": 9 - job.priority,
        "cost": job.cost,
        "prefix": job.prefix,
        "prefix_tokens": job.prefix_tokens,
        "created_at": job.created_at,
        "deadline": job.deadline,
        "expires_at": min((t for t in (job.deadline, job.queue_deadline) if t), default=None),
        "available_at": None if job.follow_up_of else starts,
        "released_at": None,
        "trace": job.trace,
        "trail": job.trail,
    }
