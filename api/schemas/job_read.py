"""What callers are told. The models are the contract; `render_job` makes the same without validating."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from models.degradation import shown
from models.lifecycle import Status
from models.service_class import ServiceClass
from models.views import JobView


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class QueueRead(Document):
    position: int | None
    estimated_start_at: datetime | None


class AttemptRead(Document):
    number: int
    max: int
    worker: str | None


class DegradationRead(Document):
    level: int
    name: str
    reason: str | None
    similarity: float | None
    source_job_id: str | None


class JobErrorRead(BaseModel):
    code: str
    message: str


class JobWebhookRead(Document):
    """Of the URL that the job was submitted with; endpoints' deliveries are in the delivery log."""

    state: Literal["pending", "delivering", "delivered", "failed", "cancelled"]
    attempts: int
    last_status_code: int | None


class Urls(Document):
    self: str
    events: str
    cancel: str


class JobRead(Document):
    id: str
    object: Literal["job"]
    status: Status
    version: int
    model: str
    service_class: ServiceClass
    priority: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline: datetime | None
    expires_at: datetime | None
    erased_at: datetime | None
    retry_of: str | None
    follow_up: str | None
    follow_up_of: str | None
    batch_id: str | None
    queue: QueueRead | None
    attempt: AttemptRead
    degradation: DegradationRead
    output: dict[str, Any] | None
    usage: dict[str, Any] | None
    timings: dict[str, Any] | None
    error: JobErrorRead | None
    webhook: JobWebhookRead | None
    metadata: dict[str, str]
    tags: list[str]
    urls: Urls


class JobPage(Document):
    object: Literal["list"]
    data: list[JobRead]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FieldProblem(Document):
    field: str
    message: str


class OpenAIError(Document):
    message: str
    type: str
    param: str | None
    code: str


class ProblemRead(Document):
    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[FieldProblem]
    error: OpenAIError


class BulkOutcome(Document):
    index: int
    status: int
    job: JobRead | None
    error: ProblemRead | None


class BulkRead(Document):
    object: Literal["list"]
    data: list[BulkOutcome]


class HealthRead(Document):
    status: str


class ReadyRead(Document):
    status: Literal["ready", "not_ready"]
    missing: list[str]


def render_job(
    view: JobView,
    *,
    base: str,
    max_attempts: int,
    position: int | None = None,
    starts_at: datetime | None = None,
) -> dict[str, Any]:
    is_queued = view.status is Status.QUEUED
    url = f"{base}/v1/jobs/{view.id}"
    return {
        "id": view.id,
        "object": "job",
        "status": view.status,
        "version": view.version,
        "model": view.model,
        "service_class": view.service_class,
        "priority": view.priority,
        "created_at": view.created_at,
        "started_at": view.started_at,
        "finished_at": view.finished_at,
        "deadline": view.deadline,
        "expires_at": view.expires_at,
        "erased_at": view.erased_at,
        "retry_of": view.retry_of,
        "follow_up": view.follow_up,
        "follow_up_of": view.follow_up_of,
        "batch_id": view.batch_id,
        "queue": {"position": position, "estimated_start_at": starts_at or view.estimated_start_at}
        if is_queued
        else None,
        "attempt": {
            "number": view.attempt,
            "max": max_attempts,
            # A job that waits again keeps the name of its last worker in the table.
            "worker": None if is_queued else view.worker,
        },
        "degradation": shown(view.degradation),
        "output": view.output,
        "usage": view.usage,
        "timings": view.timings,
        "error": view.error,
        "webhook": view.webhook,
        "metadata": view.metadata,
        "tags": view.tags,
        "urls": {"self": url, "events": f"{url}/events", "cancel": f"{url}/cancel"},
    }
