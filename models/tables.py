"""Every table. Narrow rows where they change often; wide ones where they are written once."""

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
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from models.dialect import Json, UtcDateTime

# Byte order, whatever the database's locale: ids sort by time only so.
_ID = String(64).with_variant(String(64, collation="C"), "postgresql")
_NAME = String(128)


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

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    name: Mapped[str] = mapped_column(_NAME, unique=True)
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]


class ApiKey(Base):
    """`id` is public and finds the row; of the secret only a keyed hash is kept."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(_ID, ForeignKey("tenants.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(_NAME)
    secret_hash: Mapped[str] = mapped_column(_ID)
    scopes: Mapped[list[str]]
    max_class: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class OwnerLimits(Base):
    """What a tenant or a key may use, where somebody set it; without a row the defaults count."""

    __tablename__ = "owner_limits"

    owner: Mapped[str] = mapped_column(_ID, primary_key=True)
    limits: Mapped[dict[str, Any]] = mapped_column(JSON)
    changed_at: Mapped[datetime]


class Usage(Base):
    """Sums of what finished jobs used. No foreign keys: what was used stays when its key is gone."""

    __tablename__ = "usage"

    tenant_id: Mapped[str] = mapped_column(_ID, primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(_ID, primary_key=True)
    model: Mapped[str] = mapped_column(_NAME, primary_key=True)
    service_class: Mapped[str] = mapped_column(String(16), primary_key=True)
    jobs: Mapped[int] = mapped_column(BigInteger)
    degraded: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)


class Job(Base):
    """What changes while a job lives. `attempt` is the fencing token; `generation` dates its messages."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(_ID)
    model: Mapped[str] = mapped_column(_NAME)
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
    prefix: Mapped[str | None] = mapped_column(_ID)
    prefix_tokens: Mapped[int] = mapped_column(Integer, default=0)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    deadline: Mapped[datetime | None]
    queue_deadline: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(_NAME)
    batch_id: Mapped[str | None] = mapped_column(_ID)
    batch_line: Mapped[int | None] = mapped_column(Integer)
    retry_of: Mapped[str | None] = mapped_column(_ID)
    follow_up: Mapped[str | None] = mapped_column(_ID)  # the job that gives the full answer
    follow_up_of: Mapped[str | None] = mapped_column(_ID)
    key_id: Mapped[str | None] = mapped_column(_ID)  # whose usage it is
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

    job_id: Mapped[str] = mapped_column(_ID, primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    status: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(Integer)
    worker: Mapped[str | None] = mapped_column(_NAME)
    reason: Mapped[str | None] = mapped_column(_ID)


class DeadLetter(Base):
    """A job whose attempts are used up, until somebody decides: sent again, or discarded."""

    __tablename__ = "dead_letters"

    job_id: Mapped[str] = mapped_column(_ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    died_at: Mapped[datetime]
    requeued_as: Mapped[str | None] = mapped_column(_ID)
    discarded_at: Mapped[datetime | None]


class ModelHold(Base):
    """A model of which nothing new begins; without a row it runs."""

    __tablename__ = "model_holds"

    model: Mapped[str] = mapped_column(_NAME, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # paused or draining
    since: Mapped[datetime]


class DegradationPin(Base):
    """The level that an operator fixed for a model, until a time."""

    __tablename__ = "degradation_pins"

    model: Mapped[str] = mapped_column(_NAME, primary_key=True)
    level: Mapped[int] = mapped_column(SmallInteger)
    expires_at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(_ID)
    created_at: Mapped[datetime]


class DegradationChange(Base):
    """The audit of the policy: every change of a model's level or pin, by whom, and on what reading."""

    __tablename__ = "degradation_changes"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    model: Mapped[str] = mapped_column(_NAME)
    before: Mapped[int] = mapped_column(SmallInteger)
    after: Mapped[int] = mapped_column(SmallInteger)
    rule: Mapped[str] = mapped_column(String(32))
    reason: Mapped[str] = mapped_column(String(256))
    actor: Mapped[str] = mapped_column(_ID)
    reading: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class Payload(Base):
    """What was asked: written once, read at the claim, erased on request."""

    __tablename__ = "payloads"

    job_id: Mapped[str] = mapped_column(_ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    # Not JSONB: never searched, and the prompt's bytes come back as they went in.
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    details: Mapped[dict[str, Any]] = mapped_column("metadata", JSON)
    tags: Mapped[list[str]]
    result_ttl: Mapped[int | None] = mapped_column(Integer)  # seconds
    # {"url", "events"}; beside the request, so that the end of a job need not read the prompt.
    webhook: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    erased_at: Mapped[datetime | None]
    custom_id: Mapped[str | None] = mapped_column(Text)  # a batch's line says it


class JobTag(Base):
    __tablename__ = "job_tags"

    tenant_id: Mapped[str] = mapped_column(_ID, primary_key=True)
    tag: Mapped[str] = mapped_column(_ID, primary_key=True)
    job_id: Mapped[str] = mapped_column(
        _ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True, index=True
    )


class Result(Base):
    """How a job ended: one row per terminal job, written in the transaction that ended it."""

    __tablename__ = "results"

    job_id: Mapped[str] = mapped_column(_ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
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

    job_id: Mapped[str] = mapped_column(_ID, primary_key=True)
    attempt: Mapped[int] = mapped_column(Integer)
    worker: Mapped[str] = mapped_column(_NAME, index=True)
    expires_at: Mapped[datetime]
    cancel_requested: Mapped[bool] = mapped_column(default=False)


class Outbox(Base):
    """A job that waits, from its submission to its claim: the one queue that is true.

    `state` is scheduled (not before a time), waiting (for the relay) or released (to the broker).
    """

    __tablename__ = "outbox"

    job_id: Mapped[str] = mapped_column(_ID, primary_key=True)
    generation: Mapped[int] = mapped_column(Integer)
    state: Mapped[str] = mapped_column(String(16))
    lane: Mapped[str] = mapped_column(String(256))
    model: Mapped[str] = mapped_column(_NAME)
    service_class: Mapped[str] = mapped_column(String(16))
    tenant_id: Mapped[str] = mapped_column(_ID)
    batch_id: Mapped[str | None] = mapped_column(_ID)
    rank: Mapped[int] = mapped_column(
        SmallInteger
    )  # 9 - priority: an index cannot be reflected descending on SQLite
    cost: Mapped[int] = mapped_column(Integer)
    prefix: Mapped[str | None] = mapped_column(_ID)
    prefix_tokens: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime]
    deadline: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    available_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")  # that count
    strikes: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")
    trace: Mapped[str | None] = mapped_column(String(64))

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

    tenant_id: Mapped[str] = mapped_column(_ID, primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(32))
    job_id: Mapped[str] = mapped_column(_ID)
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Worker(Base):
    """A worker's own word, once a heartbeat: how many slots it has for which models."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(_NAME, primary_key=True)
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

    job_id: Mapped[str] = mapped_column(_ID, ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    score: Mapped[int] = mapped_column(SmallInteger)
    comment: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]


class WebhookEndpoint(Base):
    """Where a tenant wants its events. Disabled endpoints get none until their owner enables them."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(_ID, index=True)
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[list[str]]
    description: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None] = mapped_column(String(64))


class WebhookSecret(Base):
    """Sealed signing secrets by owner: an endpoint's id, or a tenant's for the URLs of single jobs."""

    __tablename__ = "webhook_secrets"

    owner: Mapped[str] = mapped_column(_ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(_ID, index=True)
    current: Mapped[str] = mapped_column(Text)
    previous: Mapped[str | None] = mapped_column(Text)
    previous_until: Mapped[datetime | None]


class WebhookReceiver(Base):
    """What is known of a receiver, by lane: failures in a row, and until when nothing is sent.

    The row of one job's URL says only that this URL answered 410.
    """

    __tablename__ = "webhook_receivers"

    lane: Mapped[str] = mapped_column(_ID, primary_key=True)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    open_until: Mapped[datetime | None]
    gone_at: Mapped[datetime | None]
    changed_at: Mapped[datetime] = mapped_column(index=True)


class WebhookEvent(Base):
    """What is said, byte for byte: written in the transaction that makes it true, never changed.

    `body` is None once the job that it tells of was erased.
    """

    __tablename__ = "webhook_events"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(_ID)
    job_id: Mapped[str | None] = mapped_column(_ID, index=True)
    type: Mapped[str] = mapped_column(String(32))
    body: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class WebhookDelivery(Base):
    """One event for one receiver. `state` is pending, delivering, delivered, failed or cancelled.

    `due_at` is when a pending row is sent, and when a delivering one, whose sender died, is sent again.
    `claim` is the fencing token; deliveries of one `lane` share a limit and a breaker. `since` and `tries`
    begin again with a redelivery, `attempts` counts all.
    """

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(_ID, primary_key=True)
    event_id: Mapped[str] = mapped_column(
        _ID, ForeignKey("webhook_events.id", ondelete="CASCADE"), index=True
    )
    tenant_id: Mapped[str] = mapped_column(_ID)
    job_id: Mapped[str | None] = mapped_column(_ID)
    endpoint_id: Mapped[str | None] = mapped_column(_ID)
    url: Mapped[str] = mapped_column(Text)
    lane: Mapped[str] = mapped_column(_ID)
    state: Mapped[str] = mapped_column(String(16))
    claim: Mapped[int] = mapped_column(Integer, default=0)
    tries: Mapped[int] = mapped_column(Integer, default=0)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    last_status: Mapped[int | None] = mapped_column(Integer)
    last_error: Mapped[str | None] = mapped_column(String(256))
    created_at: Mapped[datetime]
    due_at: Mapped[datetime]
    since: Mapped[datetime]
    delivered_at: Mapped[datetime | None]

    __table_args__ = (
        Index(
            "ix_webhook_deliveries_open",
            "lane",
            "due_at",
            postgresql_where=text("state IN ('pending', 'delivering')"),
            sqlite_where=text("state IN ('pending', 'delivering')"),
        ),
        Index("ix_webhook_deliveries_job_id", "job_id"),
        Index("ix_webhook_deliveries_tenant_id_id", "tenant_id", "id"),
    )


class WebhookAttempt(Base):
    """One call: when, what came back, and how long it took. Of the answer only its status is kept."""

    __tablename__ = "webhook_attempts"

    delivery_id: Mapped[str] = mapped_column(
        _ID, ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    started_at: Mapped[datetime]
    status_code: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(String(256))
    duration_ms: Mapped[float]
