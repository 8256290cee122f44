"""Webhooks: who is told, what was said, and how each delivery goes."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from models.tables import ID, Base


class WebhookEndpoint(Base):
    """Where a tenant wants its events. Disabled endpoints get none until their owner enables them."""

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID, index=True)
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[list[str]]
    description: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None] = mapped_column(String(64))


class WebhookSecret(Base):
    """Sealed signing secrets by owner: an endpoint's id, or a tenant's for the URLs of single jobs."""

    __tablename__ = "webhook_secrets"

    owner: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID, index=True)
    current: Mapped[str] = mapped_column(Text)
    previous: Mapped[str | None] = mapped_column(Text)
    previous_until: Mapped[datetime | None]


class WebhookReceiver(Base):
    """What is known of a receiver, by lane: failures in a row, and until when nothing is sent.

    The row of one job's URL says only that this URL answered 410.
    """

    __tablename__ = "webhook_receivers"

    lane: Mapped[str] = mapped_column(ID, primary_key=True)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    open_until: Mapped[datetime | None]
    gone_at: Mapped[datetime | None]
    changed_at: Mapped[datetime] = mapped_column(index=True)


class WebhookEvent(Base):
    """What is said, byte for byte: written in the transaction that makes it true, never changed.

    `body` is None once the job that it tells of was erased.
    """

    __tablename__ = "webhook_events"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    job_id: Mapped[str | None] = mapped_column(ID, index=True)
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

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    event_id: Mapped[str] = mapped_column(ID, ForeignKey("webhook_events.id", ondelete="CASCADE"), index=True)
    tenant_id: Mapped[str] = mapped_column(ID)
    job_id: Mapped[str | None] = mapped_column(ID)
    endpoint_id: Mapped[str | None] = mapped_column(ID)
    url: Mapped[str] = mapped_column(Text)
    lane: Mapped[str] = mapped_column(ID)
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
        ID, ForeignKey("webhook_deliveries.id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    started_at: Mapped[datetime]
    status_code: Mapped[int | None] = mapped_column(Integer)
    error: Mapped[str | None] = mapped_column(String(256))
    duration_ms: Mapped[float]
