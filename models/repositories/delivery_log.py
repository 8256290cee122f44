"""The delivery log as its owner sees it, and sending again: every statement is scoped to a tenant."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, Table, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Now, ring_after_commit
from models.repositories.webhook_events import BELL
from models.webhook_tables import WebhookAttempt, WebhookDelivery, WebhookEvent

_deliveries: Final[Table] = WebhookDelivery.__table__  # type: ignore[assignment]
_events: Final[Table] = WebhookEvent.__table__  # type: ignore[assignment]
_attempts: Final[Table] = WebhookAttempt.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Attempt:
    number: int
    started_at: datetime
    status_code: int | None
    error: str | None
    duration_ms: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """`attempts_made` are listed where one delivery is read; `is_erased`: there is nothing to send again."""

    id: str
    event_id: str
    type: str
    job_id: str | None
    endpoint_id: str | None
    url: str
    state: str
    attempts: int
    last_status: int | None
    last_error: str | None
    created_at: datetime
    due_at: datetime
    delivered_at: datetime | None
    is_erased: bool
    attempts_made: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Filter:
    """None narrows nothing. `after` is the last id of the page before."""

    job_id: str | None = None
    endpoint_id: str | None = None
    state: str | None = None
    after: str | None = None


_COLUMNS: Final = [
    _deliveries.c.id,
    _deliveries.c.event_id,
    _events.c.type,
    _deliveries.c.job_id,
    _deliveries.c.endpoint_id,
    _deliveries.c.url,
    _deliveries.c.state,
    _deliveries.c.attempts,
    _deliveries.c.last_status,
    _deliveries.c.last_error,
    _deliveries.c.created_at,
    _deliveries.c.due_at,
    _deliveries.c.delivered_at,
    _events.c.body.is_(None).label("is_erased"),
]


def _select(tenant_id: str) -> Select[Any]:
    joined = _deliveries.join(_events, _events.c.id == _deliveries.c.event_id)
    return select(*_COLUMNS).select_from(joined).where(_deliveries.c.tenant_id == tenant_id)


async def page(
    connection: AsyncConnection, tenant_id: str, wanted: Filter, *, limit: int
) -> tuple[list[Delivery], bool]:
    """Newest first, and whether there are more."""
    statement = _select(tenant_id)
    for column, value in (
        (_deliveries.c.job_id, wanted.job_id),
        (_deliveries.c.endpoint_id, wanted.endpoint_id),
        (_deliveries.c.state, wanted.state),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if wanted.after is not None:
        statement = statement.where(_deliveries.c.id < wanted.after)
    rows = (await connection.execute(statement.order_by(_deliveries.c.id.desc()).limit(limit + 1))).all()
    return [Delivery(*row) for row in rows[:limit]], len(rows) > limit


async def read(connection: AsyncConnection, tenant_id: str, delivery_id: str) -> Delivery | None:
    statement = _select(tenant_id).where(_deliveries.c.id == delivery_id)
    row = (await connection.execute(statement)).one_or_none()
    if row is None:
        return None
    made = await connection.execute(
        select(
            _attempts.c.number,
            _attempts.c.started_at,
            _attempts.c.status_code,
            _attempts.c.error,
            _attempts.c.duration_ms,
        )
        .where(_attempts.c.delivery_id == delivery_id)
        .order_by(_attempts.c.number)
    )
    return replace(Delivery(*row), attempts_made=tuple(Attempt(*attempt) for attempt in made))


async def send_again(connection: AsyncConnection, tenant_id: str, delivery_id: str) -> bool:
    """Due now, with the whole schedule before it; False while it is on its way."""
    changed = await connection.execute(
        update(_deliveries)
        .where(
            _deliveries.c.id == delivery_id,
            _deliveries.c.tenant_id == tenant_id,
            _deliveries.c.state != "delivering",
        )
        .values(state="pending", tries=0, due_at=Now(), since=Now(), last_error=None, delivered_at=None)
    )
    ring_after_commit(connection, BELL)
    return bool(changed.rowcount)
