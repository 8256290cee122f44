"""Events and whom they are for: written when something ends, kept byte for byte, forgotten in time."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, delete, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from core.ids import new_id
from models.dialect import Now, ring_after_commit
from models.lifecycle import Status
from models.membership import Among
from models.tables import Job, Payload
from models.webhook_events import JOB_EVENTS, TEST, FinishedJob, body, job_data, lane_of_url, wants
from models.webhook_tables import WebhookDelivery, WebhookEndpoint, WebhookEvent, WebhookReceiver

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_payloads: Final[Table] = Payload.__table__  # type: ignore[assignment]
_endpoints: Final[Table] = WebhookEndpoint.__table__  # type: ignore[assignment]
_events: Final[Table] = WebhookEvent.__table__  # type: ignore[assignment]
_deliveries: Final[Table] = WebhookDelivery.__table__  # type: ignore[assignment]
_receivers: Final[Table] = WebhookReceiver.__table__  # type: ignore[assignment]

BELL: Final = "webhooks"  # rung after the commit that made a delivery due
OPEN: Final = ("pending", "delivering")
_KEEP_RECEIVERS: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Target:
    """One receiver of an event; without an endpoint it is a single job's URL."""

    url: str
    lane: str
    endpoint_id: str | None = None


def has_endpoint(tenant_id: ColumnElement[str]) -> ColumnElement[bool]:
    """The tenant wants to hear of its jobs."""
    return exists().where(_endpoints.c.tenant_id == tenant_id, _endpoints.c.disabled_at.is_(None))


async def tell(connection: AsyncConnection, results: Mapping[str, Mapping[str, Any]]) -> None:
    """An event and its deliveries for each of these finished jobs; somebody wants to hear of each."""
    if not results:
        return
    finished = await _finished_jobs(connection, results)
    endpoints = await _endpoints_of(connection, {job.tenant_id for job in finished})
    rows: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for job in finished:
        kind = JOB_EVENTS[job.status]
        if targets := _targets(job.tenant_id, job.webhook, kind, endpoints[job.tenant_id]):
            rows.append(_rows(job, kind, targets))
    await _insert(connection, rows)


async def tell_test(
    connection: AsyncConnection, tenant_id: str, target: Target, *, at: datetime, keep: timedelta
) -> str:
    """A `webhook.test` for one endpoint; the id of its delivery."""
    event_id = new_id("evt")
    data = {"endpoint_id": target.endpoint_id}
    event = {
        "id": event_id,
        "tenant_id": tenant_id,
        "job_id": None,
        "type": TEST,
        "body": body(event_id, TEST, at, data),
        "created_at": at,
        "expires_at": at + keep,
    }
    delivery = _delivery(event, target, at)
    await _insert(connection, [(event, [delivery])])
    found: str = delivery["id"]
    return found


async def tell_batch(
    connection: AsyncConnection,
    tenant_id: str,
    kind: str,
    data: Mapping[str, Any],
    *,
    webhook: Mapping[str, Any] | None,
    at: datetime,
    keep: timedelta,
) -> None:
    """An event of a batch that has just ended, for its own URL and for the tenant's endpoints."""
    endpoints = await _endpoints_of(connection, {tenant_id})
    targets = _targets(tenant_id, webhook, kind, endpoints[tenant_id])
    if not targets:
        return
    event_id = new_id("evt")
    event = {
        "id": event_id,
        "tenant_id": tenant_id,
        "job_id": None,
        "type": kind,
        "body": body(event_id, kind, at, data),
        "created_at": at,
        "expires_at": at + keep,
    }
    await _insert(connection, [(event, [_delivery(event, target, at) for target in targets])])


async def erase(connection: AsyncConnection, job_id: str) -> None:
    """The job's answer and metadata are in its event, too; what was not sent yet never is."""
    await connection.execute(update(_events).where(_events.c.job_id == job_id).values(body=None))
    await connection.execute(
        update(_deliveries)
        .where(_deliveries.c.job_id == job_id, _deliveries.c.state.in_(OPEN))
        .values(state="cancelled", last_error="the job was erased")
    )


async def forget(connection: AsyncConnection, *, limit: int) -> int:
    """Events whose time is over, once nothing of them is to be sent any more; the number of them."""
    open_ones = exists().where(_deliveries.c.event_id == _events.c.id, _deliveries.c.state.in_(OPEN))
    over = select(_events.c.id).where(_events.c.expires_at <= Now(), ~open_ones).limit(limit)
    gone = await connection.execute(delete(_events).where(_events.c.id.in_(over)))
    await connection.execute(delete(_receivers).where(_receivers.c.changed_at <= Now(-_KEEP_RECEIVERS)))
    return gone.rowcount


async def _finished_jobs(
    connection: AsyncConnection, results: Mapping[str, Mapping[str, Any]]
) -> list[FinishedJob]:
    rows = await connection.execute(
        select(
            _jobs.c.id,
            _jobs.c.tenant_id,
            _jobs.c.status,
            _jobs.c.version,
            _jobs.c.finished_at,
            _jobs.c.degradation,
            _payloads.c.metadata,
            _payloads.c.webhook,
        )
        .join(_payloads, _payloads.c.job_id == _jobs.c.id)
        .where(Among(_jobs.c.id, list(results)))
    )
    return [_finished(row, results[row.id]) for row in rows]


def _finished(row: Any, result: Mapping[str, Any]) -> FinishedJob:
    return FinishedJob(
        id=row.id,
        tenant_id=row.tenant_id,
        status=Status(row.status),
        version=row.version,
        finished_at=row.finished_at,
        expires_at=result["expires_at"],
        metadata=row.metadata,
        webhook=row.webhook,
        output=result.get("output"),
        usage=result.get("usage"),
        degradation=result.get("degradation") or row.degradation,
    )


async def _endpoints_of(
    connection: AsyncConnection, tenants: set[str]
) -> dict[str, list[tuple[str, str, Sequence[str]]]]:
    rows = await connection.execute(
        select(_endpoints.c.tenant_id, _endpoints.c.id, _endpoints.c.url, _endpoints.c.events)
        .where(_endpoints.c.tenant_id.in_(tenants), _endpoints.c.disabled_at.is_(None))
        .order_by(_endpoints.c.id)
    )
    found: defaultdict[str, list[tuple[str, str, Sequence[str]]]] = defaultdict(list)
    for row in rows:
        found[row.tenant_id].append((row.id, row.url, row.events))
    return found


def _targets(
    tenant_id: str,
    webhook: Mapping[str, Any] | None,
    kind: str,
    endpoints: Sequence[tuple[str, str, Sequence[str]]],
) -> list[Target]:
    targets = [
        Target(url, lane=name, endpoint_id=name) for name, url, events in endpoints if wants(events, kind)
    ]
    if webhook and wants(webhook.get("events") or (), kind):
        url = webhook["url"]
        targets.append(Target(url, lane_of_url(tenant_id, url)))
    return targets


def _rows(
    job: FinishedJob, kind: str, targets: Sequence[Target]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    event_id = new_id("evt")
    event = {
        "id": event_id,
        "tenant_id": job.tenant_id,
        "job_id": job.id,
        "type": kind,
        "body": body(event_id, kind, job.finished_at, job_data(job)),
        "created_at": job.finished_at,
        "expires_at": job.expires_at,
    }
    return event, [_delivery(event, target, job.finished_at) for target in targets]


def _delivery(event: Mapping[str, Any], target: Target, at: datetime) -> dict[str, Any]:
    return {
        "id": new_id("whd"),
        "event_id": event["id"],
        "tenant_id": event["tenant_id"],
        "job_id": event["job_id"],
        "endpoint_id": target.endpoint_id,
        "url": target.url,
        "lane": target.lane,
        "state": "pending",
        "claim": 0,
        "tries": 0,
        "attempts": 0,
        "created_at": at,
        "due_at": at,
        "since": at,
    }


async def _insert(
    connection: AsyncConnection, rows: Sequence[tuple[dict[str, Any], list[dict[str, Any]]]]
) -> None:
    if not rows:
        return
    await connection.execute(insert(_events), [event for event, _ in rows])
    await connection.execute(insert(_deliveries), [one for _, deliveries in rows for one in deliveries])
    ring_after_commit(connection, BELL)
