"""Tables of tenants, jobs and workers. Narrow rows where they change often; wide ones written once."""

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Text,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from models.dialect import Json, UtcDateTime

# Byte order, whatever the database's locale: ids sort by time only so.
ID = String(64).with_variant(String(64, collation="C"), "postgresql")
NAME = String(128)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy's declared interface
        datetime: UtcDateTime(),
        dict[str, Any]: Json,
        list[str]: Json,
    }


class Tenant(Base):
    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    name: Mapped[str] = mapped_column(NAME, unique=True)
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    # Its prompts share nothing with others' in an engine's prefix cache.
    private_prefixes: Mapped[bool] = mapped_column(default=False, server_default=false())


class ApiKey(Base):
    """`id` is public and finds the row; of the secret only a keyed hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID, ForeignKey("tenants.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(NAME)
    secret_hash: Mapped[str] = mapped_column(ID)
    scopes: Mapped[list[str]]
    max_class: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class OwnerLimits(Base):
    """What a tenant or a key may use, where somebody set it; without a row the defaults count."""

    __tablename__ = "owner_limits"

    owner: Mapped[str] = mapped_column(ID, primary_key=True)
    limits: Mapped[dict[str, Any]] = mapped_column(JSON)
    changed_at: Mapped[datetime]


class Usage(Base):
    """Sums of what finished jobs used. No foreign keys: what was used stays when its key is gone."""

    __tablename__ = "usage"

    tenant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(ID, primary_key=True)
    model: Mapped[str] = mapped_column(NAME, primary_key=True)
    service_class: Mapped[str] = mapped_column(String(16), primary_key=True)
    jobs: Mapped[int] = mapped_column(BigInteger)
    degraded: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)


class Job(Base):
    """What changes while a job lives. `attempt` is the fencing token; `generation` dates its messages."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    model: Mapped[str] = mapped_column(NAME)
    service_class: Mapped[str] = mapped_column(String(16))
    priority: Mapped[int] = mapped_column(SmallInteger)
    status: Mapped[str] = mapped_column(String(16))
    version: Mapped[int] = mapped_column(Integer, default=1)
    generation: Mapped[int] = mapped_column(Integer, default=0)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    excused: Mapped[int] = mapped_column(Integer, default=0)
    # Attempts under which the engine died or hung: what says that the prompt itself may be the cause.
    strikes: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")
    cost: Mapped[int] = mapped_column(Integer)
    prefix: Mapped[str | None] = mapped_column(ID)
    prefix_tokens: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    deadline: Mapped[datetime | None]
    queue_deadline: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(NAME)
    batch_id: Mapped[str | None] = mapped_column(ID)
    batch_line: Mapped[int | None] = mapped_column(Integer)
    retry_of: Mapped[str | None] = mapped_column(ID)
    follow_up: Mapped[str | None] = mapped_column(ID)  # the job that gives the full answer
    follow_up_of: Mapped[str | None] = mapped_column(ID)
    key_id: Mapped[str | None] = mapped_column(ID)  # whose usage it is
    fingerprint: Mapped[str] = mapped_column(String(32))
    trace: Mapped[str | None] = mapped_column(String(64))  # W3C traceparent, where tracing is on
    # What was decided at submission, None for what was asked; the result's own label is the last word.
    degradation: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    estimated_start_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_jobs_tenant_id_id", "tenant_id", "id"),
        Index(
            "ix_jobs_live_fingerprint",
            "tenant_id",
            "fingerprint",
            postgresql_where=text("status IN ('queued', 'running')"),
            sqlite_where=text("status IN ('queued', 'running')"),
        ),
        Index(
            "ix_jobs_batch_id_batch_line",
            "batch_id",
            "batch_line",
            unique=True,
            postgresql_where=text("batch_id IS NOT NULL"),
            sqlite_where=text("batch_id IS NOT NULL"),
        ),
    )


class JobChange(Base):
    """A change of a job, in the transaction that made it. The submission is in `jobs` already.

    No foreign key: like a lease it goes with its job, and a check per row would cost more than the row.
    """

    __tablename__ = "job_changes"

    job_id: Mapped[str] = mapped_column(ID, primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    status: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(Integer)
    worker: Mapped[str | None] = mapped_column(NAME)
    reason: Mapped[str | None] = mapped_column(ID)


class DeadLetter(Base):
    """A job whose attempts are used up, until somebody decides: sent again, or discarded."""

    __tablename__ = "dead_letters"

    job_id: Mapped[str] = mapped_column(ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    died_at: Mapped[datetime]
    requeued_as: Mapped[str | None] = mapped_column(ID)
    discarded_at: Mapped[datetime | None]


class ModelHold(Base):
    """A model of which nothing new begins; without a row it runs."""

    __tablename__ = "model_holds"

    model: Mapped[str] = mapped_column(NAME, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # paused or draining
    since: Mapped[datetime]


class DegradationPin(Base):
    """The level that an operator fixed for a model, until a time."""

    __tablename__ = "degradation_pins"

    model: Mapped[str] = mapped_column(NAME, primary_key=True)
    level: Mapped[int] = mapped_column(SmallInteger)
    expires_at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(ID)
    created_at: Mapped[datetime]


class DegradationChange(Base):
    """The audit of the policy: every change of a model's level or pin, by whom, and on what reading."""

    __tablename__ = "degradation_changes"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    model: Mapped[str] = mapped_column(NAME)
    before: Mapped[int] = mapped_column(SmallInteger)
    after: Mapped[int] = mapped_column(SmallInteger)
    rule: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str] = mapped_column(String(256))
    actor: Mapped[str] = mapped_column(ID)
    reading: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class Payload(Base):
    """What was asked: written once, read at the claim, erased on request."""

    __tablename__ = "payloads"

    job_id: Mapped[str] = mapped_column(ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    # Not JSONB: never searched, and the prompt's bytes come back as they went in.
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    details: Mapped[dict[str, Any]] = mapped_column("metadata", JSON)
    tags: Mapped[list[str]]
    result_ttl: Mapped[int | None] = mapped_column(Integer)  # seconds
    # {"url", "events"}; beside the request, so that the end of a job need not read the prompt.
    webhook: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    erased_at: Mapped[datetime | None]
    custom_id: Mapped[str | None] = mapped_column(Text)  # a batch's line says it
    trail: Mapped[str | None] = mapped_column(Text)  # how the prompt begins, for the order


class JobTag(Base):
    __tablename__ = "job_tags"

    tenant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    tag: Mapped[str] = mapped_column(ID, primary_key=True)
    job_id: Mapped[str] = mapped_column(
        ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class Result(Base):
    """How a job ended: one row per terminal job, written in the transaction that ended it."""

    __tablename__ = "results"

    job_id: Mapped[str] = mapped_column(ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    output: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    usage: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    timings: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    degradation: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Lease(Base):
    """Who runs a job, and until when. Nothing but this row changes at a heartbeat."""

    __tablename__ = "leases"

    job_id: Mapped[str] = mapped_column(ID, primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    worker: Mapped[str] = mapped_column(NAME, index=True)
    expires_at: Mapped[datetime]
    cancel_requested: Mapped[bool] = mapped_column(default=False)


class Outbox(Base):
    """A job that waits, from its submission to its claim: the one queue that is true.

    `state` is scheduled (not before a time), waiting (for the relay) or released (to the broker).
    """

    __tablename__ = "outbox"

    job_id: Mapped[str] = mapped_column(ID, primary_key=True)
    generation: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(16))
    lane: Mapped[str] = mapped_column(String(256))
    model: Mapped[str] = mapped_column(NAME)
    service_class: Mapped[str] = mapped_column(String(16))
    tenant_id: Mapped[str] = mapped_column(ID)
    batch_id: Mapped[str | None] = mapped_column(ID)
    rank: Mapped[int] = mapped_column(
        SmallInteger
    )  # 9 - priority: an index cannot be reflected descending on SQLite
    cost: Mapped[int] = mapped_column(Integer)
    prefix: Mapped[str | None] = mapped_column(ID)
    prefix_tokens: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime]
    deadline: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    available_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")  # that count
    strikes: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")
    trace: Mapped[str | None] = mapped_column(String(64))
    trail: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index(
            "ix_outbox_waiting",
            "lane",
            "rank",
            "created_at",
            "job_id",
            postgresql_where=text("state = 'waiting'"),
            sqlite_where=text("state = 'waiting'"),
        ),
        Index("ix_outbox_arrival", "model", "service_class", "created_at"),
        Index(
            "ix_outbox_scheduled",
            "available_at",
            postgresql_where=text("state = 'scheduled'"),
            sqlite_where=text("state = 'scheduled'"),
        ),
        Index(
            "ix_outbox_released",
            "lane",
            "released_at",
            postgresql_where=text("state = 'released'"),
            sqlite_where=text("state = 'released'"),
        ),
        Index(
            "ix_outbox_expires_at",
            "expires_at",
            postgresql_where=text("expires_at IS NOT NULL"),
            sqlite_where=text("expires_at IS NOT NULL"),
        ),
    )


class IdempotencyKey(Base):
    __tablename__ = "idempotency_keys"

    tenant_id: Mapped[str] = mapped_column(ID, primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(32))
    job_id: Mapped[str] = mapped_column(ID)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Worker(Base):
    """A worker's own word, once a heartbeat: how many slots it has for which models."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(NAME, primary_key=True)
    slots: Mapped[dict[str, Any]]  # served name -> slots
    held: Mapped[dict[str, Any]]  # served name -> messages in hand that are not claimed
    state: Mapped[str] = mapped_column(String(16))
    detail: Mapped[str] = mapped_column(Text, default="")
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    # An older worker's heartbeat does not name it.
    stats: Mapped[dict[str, Any]] = mapped_column(server_default="{}")


class Feedback(Base):
    __tablename__ = "feedback"

    job_id: Mapped[str] = mapped_column(ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    score: Mapped[int] = mapped_column(SmallInteger)
    comment: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
