"""What a webhook says: the kinds of events, and an event's body. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from models.degradation import shown
from models.lifecycle import Status

TEST: Final = "webhook.test"
JOB_EVENTS: Final[dict[Status, str]] = {
    Status.COMPLETED: "job.completed",
    Status.FAILED: "job.failed",
    Status.CANCELLED: "job.cancelled",
    Status.EXPIRED: "job.expired",
}
BATCH_EVENTS: Final = ("batch.completed", "batch.failed", "batch.expired", "batch.cancelled")
EVENTS: Final = (*JOB_EVENTS.values(), *BATCH_EVENTS)

# A longer answer is fetched by the job's id: receivers are told to expect small bodies.
LARGEST_OUTPUT: Final = 65_536


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """What an event says of a job, and whom it tells."""

    id: str
    tenant_id: str
    status: Status
    version: int
    finished_at: datetime
    expires_at: datetime
    metadata: Mapping[str, Any]
    webhook: Mapping[str, Any] | None
    output: Mapping[str, Any] | None
    usage: Mapping[str, Any] | None
    degradation: Mapping[str, Any] | None = None


def job_data(job: FinishedJob) -> dict[str, Any]:
    data: dict[str, Any] = {
        "id": job.id,
        "status": job.status.value,
        "version": job.version,
        "degradation": shown(job.degradation),
        "usage": job.usage,
        "metadata": job.metadata,
    }
    if job.output is not None and len(orjson.dumps(job.output)) <= LARGEST_OUTPUT:
        data["output"] = job.output
    return data


def body(event_id: str, kind: str, at: datetime, data: Mapping[str, Any]) -> str:
    """JSON as it is stored, signed and sent."""
    document = {
        "id": event_id,
        "object": "event",
        "type": kind,
        "created_at": int(at.timestamp()),
        "timestamp": at.isoformat(),
        "data": data,
    }
    return orjson.dumps(document).decode()


def wants(events: Sequence[str], kind: str) -> bool:
    """An empty filter wants all; a test is always wanted."""
    return not events or kind == TEST or kind in events


def lane_of_url(tenant_id: str, url: str) -> str:
    """Single jobs' URLs of one tenant at one host and port share a lane, whatever their paths say."""
    parts = urlsplit(url)
    return _digest("origin", tenant_id, f"{parts.scheme}://{parts.netloc}".lower())


def lane_of_exact_url(tenant_id: str, url: str) -> str:
    """Names one URL, for the one thing that holds for it alone: that it is gone."""
    return _digest("url", tenant_id, url)


def _digest(kind: str, *parts: str) -> str:
    return f"{kind}_{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:40]}"
