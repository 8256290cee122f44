"""The degradation policy as operators see and pin it."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from api.schemas.job_read import Document
from models.degradation import Level
from models.repositories.degradation import Change
from queues.policy.state import Verdict
from queues.requests.job_request import Body, Lifetime


class PinCreate(Body):
    level: Annotated[int, Field(ge=0, le=3, description="0 gives everybody what was asked.")]
    expires_in: Lifetime = Field(description="After this time the policy decides again.")


class ModelDegradation(Document):
    """`pressure` is the last reading; null while nothing was ever measured of the model."""

    model: str
    level: int
    name: str
    rule: str
    reason: str
    since: datetime | None
    pinned_until: datetime | None
    shed: list[str]
    pressure: dict[str, Any] | None


class DegradationChangeRead(Document):
    at: datetime
    model: str
    before: int
    after: int
    rule: str
    reason: str
    actor: str


class DegradationStatus(Document):
    object: Literal["degradation"]
    models: list[ModelDegradation]
    changes: list[DegradationChangeRead]


def render_model(model: str, verdict: Verdict | None) -> dict[str, Any]:
    if verdict is None:
        return _model(model, Level.FULL, rule="unknown", reason="nothing was measured yet", shed=[])
    state = verdict.state
    return _model(model, state.level, rule=state.rule, reason=state.reason, shed=sorted(state.shed)) | {
        "since": _time(state.since),
        "pinned_until": _time(state.pinned_until),
        "pressure": asdict(verdict.pressure),
    }


def _model(model: str, level: Level, *, rule: str, reason: str, shed: list[str]) -> dict[str, Any]:
    return {
        "model": model,
        "level": int(level),
        "name": level.label,
        "rule": rule,
        "reason": reason,
        "since": None,
        "pinned_until": None,
        "shed": shed,
        "pressure": None,
    }


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def render_change(change: Change) -> dict[str, Any]:
    return {
        name: getattr(change, name) for name in ("at", "model", "before", "after", "rule", "reason", "actor")
    }
