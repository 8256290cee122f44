"""What callers are told of their webhooks. Of a receiver's answer only the status is said, never its body."""

from datetime import datetime
from typing import Any, Literal

from api.schemas.job_read import Document
from models.repositories.delivery_log import Delivery
from models.repositories.webhook_endpoints import EndpointRow
from queues.webhooks import NewSecret


class EndpointRead(Document):
    id: str
    object: Literal["webhook_endpoint"]
    url: str
    events: list[str]
    description: str
    enabled: bool
    disabled_reason: Literal["gone", "owner"] | None
    failures_in_a_row: int
    paused_until: datetime | None
    created_at: datetime


class EndpointCreated(EndpointRead):
    """`secret` is shown this once."""

    secret: str


class EndpointList(Document):
    object: Literal["list"]
    data: list[EndpointRead]
    has_more: Literal[False]


class SecretRead(Document):
    """`secret` is shown this once; the one before signs beside it until `previous_valid_until`."""

    object: Literal["webhook_secret"]
    secret: str
    previous_valid_until: datetime | None


class DeliveryRead(Document):
    id: str
    object: Literal["webhook_delivery"]
    event_id: str
    type: str
    job_id: str | None
    endpoint_id: str | None
    url: str
    state: Literal["pending", "delivering", "delivered", "failed", "cancelled"]
    attempts: int
    last_status_code: int | None
    last_error: str | None
    created_at: datetime
    next_attempt_at: datetime | None
    delivered_at: datetime | None


class AttemptMade(Document):
    number: int
    started_at: datetime
    status_code: int | None
    error: str | None
    duration_ms: float


class DeliveryDetail(DeliveryRead):
    attempts_made: list[AttemptMade]


class DeliveryPage(Document):
    object: Literal["list"]
    data: list[DeliveryRead]
    first_id: str | None
    last_id: str | None
    has_more: bool


def render_endpoint(row: EndpointRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "webhook_endpoint",
        "url": row.url,
        "events": row.events,
        "description": row.description,
        "enabled": row.disabled_at is None,
        "disabled_reason": row.disabled_reason,
        "failures_in_a_row": row.failures,
        "paused_until": row.open_until,
        "created_at": row.created_at,
    }


def render_secret(made: NewSecret) -> dict[str, Any]:
    return {
        "object": "webhook_secret",
        "secret": made.secret,
        "previous_valid_until": made.previous_until,
    }


def render_delivery(row: Delivery) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "webhook_delivery",
        "event_id": row.event_id,
        "type": row.type,
        "job_id": row.job_id,
        "endpoint_id": row.endpoint_id,
        "url": row.url,
        "state": row.state,
        "attempts": row.attempts,
        "last_status_code": row.last_status,
        "last_error": row.last_error,
        "created_at": row.created_at,
        "next_attempt_at": row.due_at if row.state == "pending" else None,
        "delivered_at": row.delivered_at,
    }


def render_delivery_detail(row: Delivery) -> dict[str, Any]:
    return {**render_delivery(row), "attempts_made": list(row.attempts_made)}
