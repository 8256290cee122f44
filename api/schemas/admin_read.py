"""What operators are told, and the timeline of a job, which its owner may read too."""

from datetime import datetime
from typing import Any, Literal

from api.schemas.job_read import Document, JobErrorRead
from models.lifecycle import Status
from models.repositories.changes import Change
from models.repositories.dead_letters import Letter
from models.repositories.holds import ModelActivity
from models.service_class import ServiceClass


class ChangeRead(Document):
    version: int
    at: datetime
    status: Status
    attempt: int
    worker: str | None
    reason: str | None


class TimelineRead(Document):
    object: Literal["list"]
    data: list[ChangeRead]


class DeadLetterRead(Document):
    object: Literal["dead_letter"]
    job_id: str
    tenant_id: str
    model: str
    service_class: ServiceClass
    attempt: int
    worker: str | None
    created_at: datetime
    died_at: datetime
    error: JobErrorRead | None
    requeued_as: str | None
    discarded_at: datetime | None


class DeadLetterHistory(DeadLetterRead):
    timeline: list[ChangeRead]


class DeadLetterPage(Document):
    object: Literal["list"]
    data: list[DeadLetterRead]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ModelActivityRead(Document):
    """`drained`: nothing of it runs any more, and no worker will begin anything."""

    object: Literal["model_activity"]
    name: str
    state: Literal["serving", "paused", "draining", "drained"]
    since: datetime | None
    queued: int
    running: int


class ModelActivityPage(Document):
    object: Literal["list"]
    data: list[ModelActivityRead]


def render_timeline(changes: list[Change]) -> list[dict[str, Any]]:
    return [
        {
            "version": change.version,
            "at": change.at,
            "status": change.status,
            "attempt": change.attempt,
            "worker": change.worker,
            "reason": change.reason,
        }
        for change in changes
    ]


def render_letter(letter: Letter) -> dict[str, Any]:
    fields = {name: getattr(letter, name) for name in Letter.__slots__}
    return {"object": "dead_letter", **fields}


def render_activity(model: ModelActivity) -> dict[str, Any]:
    state = model.hold.value if model.hold else "serving"
    if model.is_drained:
        state = "drained"
    return {
        "object": "model_activity",
        "name": model.name,
        "state": state,
        "since": model.since,
        "queued": model.queued,
        "running": model.running,
    }
