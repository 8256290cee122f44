"""Deliveries on their way: what is due, who sends it, what came of it, and when it is tried again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self

from sqlalchemy import Select, Table, case, exists, func, insert, literal_column, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.settings import WebhookSettings
from models.dialect import Database, Now, ring_after_commit, skip_locked
from models.repositories.webhook_events import BELL
from models.tables import Job
from models.webhook_events import lane_of_exact_url
from models.webhook_secrets import SecretRow
from models.webhook_tables import (
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
    WebhookReceiver,
    WebhookSecret,
)

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_deliveries: Final[Table] = WebhookDelivery.__table__  # type: ignore[assignment]
_events: Final[Table] = WebhookEvent.__table__  # type: ignore[assignment]
_endpoints: Final[Table] = WebhookEndpoint.__table__  # type: ignore[assignment]
_secrets: Final[Table] = WebhookSecret.__table__  # type: ignore[assignment]
_receivers: Final[Table] = WebhookReceiver.__table__  # type: ignore[assignment]
_attempts: Final[Table] = WebhookAttempt.__table__  # type: ignore[assignment]

GONE: Final = "gone"
_GIVEN_UP: Final = "given up: the time for attempts is over"
# In the statement's text, so that the planner sees that the partial index holds the rows.
_IS_OPEN: Final = _deliveries.c.state.in_([literal_column("'pending'"), literal_column("'delivering'")])


@dataclass(frozen=True, slots=True)
class Limits:
    """Calls to one receiver at once; failures in a row that open its breaker, and how long it stays open."""

    concurrency: int
    breaker_after: int
    breaker_pause: timedelta
    breaker_longest: timedelta
    lease: timedelta

    @classmethod
    def of(cls, settings: WebhookSettings) -> Self:
        return cls(
            concurrency=settings.concurrency,
            breaker_after=settings.breaker_after,
            breaker_pause=settings.breaker_pause,
            breaker_longest=settings.breaker_longest,
            lease=settings.lease,
        )

    def pause(self, failures: int) -> timedelta:
        doubled = min(max(0, failures - self.breaker_after), 20)
        return min(self.breaker_pause * (1 << doubled), self.breaker_longest)


async def release(connection: AsyncConnection, limits: Limits, *, lanes: int) -> list[tuple[str, int]]:
    """Takes what is due of up to `lanes` receivers, none beyond its limit: (delivery id, claim) pairs.

    A row that was taken and not settled within the lease is due again, under a new claim.
    """
    parts = [_due_of(lane, room) for lane, room in await _lanes_with_room(connection, limits, lanes)]
    if not parts:
        return []
    due = union_all(*(select(part.subquery().c.id) for part in parts)).subquery()
    locked = skip_locked(
        select(_deliveries.c.id).where(
            _deliveries.c.id.in_(select(due.c.id)), _IS_OPEN, _deliveries.c.due_at <= Now()
        )
    )
    ids = list((await connection.execute(locked)).scalars())
    if not ids:
        return []
    taken = await connection.execute(
        update(_deliveries)
        .where(_deliveries.c.id.in_(ids))
        .values(state="delivering", claim=_deliveries.c.claim + 1, due_at=Now(limits.lease))
        .returning(_deliveries.c.id, _deliveries.c.claim)
    )
    return [(row.id, row.claim) for row in taken]


async def _lanes_with_room(connection: AsyncConnection, limits: Limits, most: int) -> list[tuple[str, int]]:
    """Lanes with something due, the longest due first: one index probe per lane, however long the lanes."""
    first = select(func.min(_deliveries.c.lane).label("lane")).where(_IS_OPEN)
    lanes = first.cte("lanes", recursive=True)
    following = select(func.min(_deliveries.c.lane)).where(_IS_OPEN, _deliveries.c.lane > lanes.c.lane)
    lanes = lanes.union_all(select(following.scalar_subquery()).where(lanes.c.lane.is_not(None)))
    of_lane = (_deliveries.c.lane == lanes.c.lane, _IS_OPEN)
    earliest = (
        select(func.min(_deliveries.c.due_at))
        .where(*of_lane, _deliveries.c.due_at <= Now())
        .scalar_subquery()
    )
    busy = (
        select(func.count())
        .where(*of_lane, _deliveries.c.state == "delivering", _deliveries.c.due_at > Now())
        .scalar_subquery()
    )
    # Half open: one probe at a time until one succeeds.
    allowed = case((_receivers.c.failures >= limits.breaker_after, 1), else_=limits.concurrency)
    seen = (
        select(lanes.c.lane, earliest.label("earliest"), (allowed - busy).label("room"))
        .select_from(lanes.outerjoin(_receivers, _receivers.c.lane == lanes.c.lane))
        .where(
            lanes.c.lane.is_not(None),
            _receivers.c.open_until.is_(None) | (_receivers.c.open_until <= Now()),
        )
        .subquery()
    )
    rows = await connection.execute(
        select(seen.c.lane, seen.c.room)
        .where(seen.c.earliest.is_not(None), seen.c.room > 0)
        .order_by(seen.c.earliest)
        .limit(most)
    )
    return [(row.lane, row.room) for row in rows]


def _due_of(lane: str, room: int) -> Select[Any]:
    return (
        select(_deliveries.c.id)
        .where(_deliveries.c.lane == lane, _IS_OPEN, _deliveries.c.due_at <= Now())
        .order_by(_deliveries.c.due_at, _deliveries.c.id)
        .limit(room)
    )


async def put_back_all(connection: AsyncConnection) -> None:
    """For a process that was the only sender and starts again: what it was about to send is due."""
    await connection.execute(
        update(_deliveries).where(_deliveries.c.state == "delivering").values(due_at=Now())
    )


async def put_back(connection: AsyncConnection, claims: Sequence[tuple[str, int]]) -> None:
    """What was taken and could not be handed on is due at once."""
    for delivery_id, claim in claims:
        await connection.execute(
            update(_deliveries)
            .where(
                _deliveries.c.id == delivery_id,
                _deliveries.c.claim == claim,
                _deliveries.c.state == "delivering",
            )
            .values(state="pending", due_at=Now())
        )


async def abandon(connection: AsyncConnection, *, after: timedelta) -> int:
    """Gives up what waited behind an open breaker until its time was over; the number of them."""
    over = await connection.execute(
        update(_deliveries)
        .where(_IS_OPEN, _deliveries.c.state == "pending", _deliveries.c.since <= Now(-after))
        .values(state="failed", last_error=_GIVEN_UP)
    )
    return over.rowcount


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything that a call needs; `claim` is the token with which it is settled."""

    id: str
    claim: int
    event_id: str
    tenant_id: str
    endpoint_id: str | None
    url: str
    body: str
    secret: SecretRow | None
    tries: int
    since: datetime
    trace: str | None = None


async def prepare(
    connection: AsyncConnection, delivery_id: str, claim: int, *, lease: timedelta, traced: bool = False
) -> Prepared | None:
    """Takes the delivery under the next claim; None where it is not ours, or nobody wants it any more.

    So a message that the broker delivers twice makes one call: the second copy's claim is an old one.
    `traced` asks for the job's trace, too.
    """
    taken = await connection.execute(
        update(_deliveries)
        .where(
            _deliveries.c.id == delivery_id,
            _deliveries.c.claim == claim,
            _deliveries.c.state == "delivering",
        )
        .values(claim=_deliveries.c.claim + 1, due_at=Now(lease))
        .returning(*_deliveries.c)
    )
    row = taken.one_or_none()
    if row is None:
        return None
    url, reason = await _where_to(connection, row)
    body = (await connection.execute(select(_events.c.body).where(_events.c.id == row.event_id))).scalar_one()
    if url is None or body is None:
        await _cancel(connection, _deliveries.c.id == row.id, reason or "the job was erased")
        return None
    return Prepared(
        id=row.id,
        claim=row.claim,
        event_id=row.event_id,
        tenant_id=row.tenant_id,
        endpoint_id=row.endpoint_id,
        url=url,
        body=body,
        secret=await _secret(connection, row.endpoint_id or row.tenant_id),
        tries=row.tries,
        since=row.since,
        trace=await _trace(connection, row.job_id) if traced else None,
    )


async def _trace(connection: AsyncConnection, job_id: str | None) -> str | None:
    found = await connection.execute(select(_jobs.c.trace).where(_jobs.c.id == job_id))
    trace: str | None = found.scalar_one_or_none()
    return trace


async def _where_to(connection: AsyncConnection, row: Any) -> tuple[str | None, str | None]:
    """The URL as its owner last said it, or why there is none."""
    if row.endpoint_id is None:
        lane = lane_of_exact_url(row.tenant_id, row.url)
        gone = exists().where(_receivers.c.lane == lane, _receivers.c.gone_at.is_not(None))
        if (await connection.execute(select(gone))).scalar_one():
            return None, "the receiver answered 410 before"
        return row.url, None
    statement = select(_endpoints.c.url, _endpoints.c.disabled_at).where(_endpoints.c.id == row.endpoint_id)
    endpoint = (await connection.execute(statement)).one_or_none()
    if endpoint is None:
        return None, "the endpoint was deleted"
    if endpoint.disabled_at is not None:
        return None, "the endpoint is disabled"
    return endpoint.url, None


async def _secret(connection: AsyncConnection, owner: str) -> SecretRow | None:
    row = (await connection.execute(select(_secrets).where(_secrets.c.owner == owner))).one_or_none()
    return SecretRow(*row) if row else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one call came to; `again_in` is None when it was the last."""

    started_at: datetime
    duration_ms: float
    status_code: int | None
    error: str | None
    succeeded: bool
    again_in: timedelta | None = None
    is_gone: bool = False


async def settle(
    database: Database, connection: AsyncConnection, sent: Prepared, outcome: Outcome, limits: Limits
) -> bool:
    """Records the call; False when another sender owns the delivery by now."""
    is_over = outcome.succeeded or outcome.again_in is None
    state = "delivered" if outcome.succeeded else "failed" if is_over else "pending"
    values: dict[str, Any] = {
        "state": state,
        "tries": _deliveries.c.tries + 1,
        "attempts": _deliveries.c.attempts + 1,
        "last_status": outcome.status_code,
        "last_error": outcome.error,
        "due_at": Now(outcome.again_in or timedelta()),
    }
    if outcome.succeeded:
        values["delivered_at"] = Now()
    moved = await connection.execute(
        update(_deliveries)
        .where(
            _deliveries.c.id == sent.id,
            _deliveries.c.claim == sent.claim,
            _deliveries.c.state == "delivering",
        )
        .values(**values)
        .returning(_deliveries.c.attempts, _deliveries.c.lane)
    )
    row = moved.one_or_none()
    if outcome.is_gone:
        # Whoever owns the delivery by now: the receiver has said it.
        await _disable(database, connection, sent)
    if row is None:
        return False
    await connection.execute(insert(_attempts).values(_attempt_row(sent, row.attempts, outcome)))
    await _judge(database, connection, row.lane, outcome, limits)
    await _ring_for_more(connection, row.lane)
    return True


def _attempt_row(sent: Prepared, number: int, outcome: Outcome) -> dict[str, Any]:
    return {
        "delivery_id": sent.id,
        "number": number,
        "started_at": outcome.started_at,
        "status_code": outcome.status_code,
        "error": outcome.error,
        "duration_ms": outcome.duration_ms,
    }


async def _judge(
    database: Database, connection: AsyncConnection, lane: str, outcome: Outcome, limits: Limits
) -> None:
    """What the outcome says of the receiver."""
    if outcome.succeeded:
        await connection.execute(
            update(_receivers)
            .where(_receivers.c.lane == lane, _receivers.c.failures > 0)
            .values(failures=0, open_until=None, changed_at=Now())
        )
    elif not outcome.is_gone:
        await _count_failure(database, connection, lane, limits)


async def _count_failure(database: Database, connection: AsyncConnection, lane: str, limits: Limits) -> None:
    statement = database.insert(_receivers).values(lane=lane, failures=1, changed_at=Now())
    counted = await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["lane"],
            set_={"failures": _receivers.c.failures + 1, "changed_at": Now()},
            # Calls that were under way when the breaker opened say nothing new.
            where=_receivers.c.open_until.is_(None) | (_receivers.c.open_until <= Now()),
        ).returning(_receivers.c.failures)
    )
    failures = counted.scalar_one_or_none()
    if failures is not None and failures >= limits.breaker_after:
        await connection.execute(
            update(_receivers).where(_receivers.c.lane == lane).values(open_until=Now(limits.pause(failures)))
        )


async def _disable(database: Database, connection: AsyncConnection, sent: Prepared) -> None:
    """410: nothing more to an endpoint until its owner enables it, or to a job's URL for a week."""
    if sent.endpoint_id is not None:
        await connection.execute(
            update(_endpoints)
            .where(_endpoints.c.id == sent.endpoint_id, _endpoints.c.disabled_at.is_(None))
            .values(disabled_at=Now(), disabled_reason=GONE)
        )
        await cancel_pending(connection, sent.endpoint_id, "the endpoint answered 410")
        return
    lane = lane_of_exact_url(sent.tenant_id, sent.url)
    statement = database.insert(_receivers).values(lane=lane, failures=0, gone_at=Now(), changed_at=Now())
    await connection.execute(
        statement.on_conflict_do_update(index_elements=["lane"], set_={"gone_at": Now(), "changed_at": Now()})
    )
    same = (
        (_deliveries.c.tenant_id == sent.tenant_id)
        & _deliveries.c.endpoint_id.is_(None)
        & (_deliveries.c.url == sent.url)
        & _IS_OPEN
    )
    await _cancel(connection, same & (_deliveries.c.state == "pending"), "the receiver answered 410 before")


async def cancel_pending(connection: AsyncConnection, endpoint_id: str, reason: str) -> None:
    """What waits for an endpoint; what is on its way ends as it ends."""
    waits = (_deliveries.c.lane == endpoint_id) & _IS_OPEN & (_deliveries.c.state == "pending")
    await _cancel(connection, waits, reason)


async def _cancel(connection: AsyncConnection, which: Any, reason: str) -> None:
    await connection.execute(update(_deliveries).where(which).values(state="cancelled", last_error=reason))


async def _ring_for_more(connection: AsyncConnection, lane: str) -> None:
    """The receiver has room again, and something waits for it."""
    waits = exists().where(_deliveries.c.lane == lane, _IS_OPEN, _deliveries.c.due_at <= Now())
    if (await connection.execute(select(waits))).scalar_one():
        ring_after_commit(connection, BELL)
