"""A job as its readers see it: one value, from the tables or from its hot copy in Redis."""

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final

import orjson

from models.lifecycle import TERMINAL, Status

_TIMES: Final = (
    "created_at",
    "started_at",
    "finished_at",
    "deadline",
    "expires_at",
    "erased_at",
    "estimated_start_at",
)


@dataclass(frozen=True, slots=True)
class JobView:
    """Everything that is said about a job, but not what was asked."""

    id: str
    tenant_id: str
    model: str
    service_class: str
    priority: int
    status: Status
    version: int
    created_at: datetime
    generation: int = 0
    attempt: int = 0
    excused: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    deadline: datetime | None = None
    expires_at: datetime | None = None
    worker: str | None = None
    batch_id: str | None = None
    retry_of: str | None = None
    follow_up: str | None = None
    follow_up_of: str | None = None
    output: dict[str, Any] | None = None
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)
    erased_at: datetime | None = None
    webhook: dict[str, Any] | None = None
    degradation: dict[str, Any] | None = None  # None: what was asked
    estimated_start_at: datetime | None = None

    @property
    def is_finished(self) -> bool:
        return self.status in TERMINAL

    def to_json(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, document: bytes) -> "JobView":
        values = orjson.loads(document)
        known = {f.name for f in fields(cls)}
        kept = {name: value for name, value in values.items() if name in known}
        for name in _TIMES:
            if kept.get(name) is not None:
                kept[name] = datetime.fromisoformat(kept[name])
        kept["status"] = Status(kept["status"])
        return cls(**kept)


def webhook_view(
    wanted: dict[str, Any] | None,
    state: str | None = None,
    attempts: int | None = None,
    last_status: int | None = None,
    *,
    is_over: bool = False,
) -> dict[str, Any] | None:
    """What a job says of the URL that it was submitted with; None where its end interests nobody."""
    if not wanted or (is_over and state is None):
        return None
    return {"state": state or "pending", "attempts": attempts or 0, "last_status_code": last_status}
