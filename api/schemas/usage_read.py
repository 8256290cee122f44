"""What callers are told of their usage, and operators of limits."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from models.limits import Complexity, Limits
from models.repositories.usage import UsageRow


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class UsageTotals(Document):
    jobs: int
    degraded: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    total_tokens: int


class UsageGroup(UsageTotals):
    group: str


class UsageRead(Document):
    """Jobs that used something, `degraded` ones among them, and their tokens."""

    object: Literal["usage"]
    since: date
    until: date
    group_by: Literal["day", "key", "model", "class"]
    data: list[UsageGroup]
    total: UsageTotals


class LimitsRead(Document):
    """Bounds of one owner: null is the default, 0 no bound."""

    object: Literal["limits"]
    owner: str
    requests_per_minute: int | None
    tokens_per_minute: int | None
    tokens_per_day: int | None
    concurrent_jobs: int | None
    max_complexity: Complexity | None


class PurgeRead(Document):
    object: Literal["purge"]
    job_id: str
    removed: int


def render_usage(rows: Sequence[UsageRow], *, since: date, until: date, group_by: str) -> dict[str, Any]:
    data = [_with_total(asdict(row)) for row in rows]
    return {
        "object": "usage",
        "since": since,
        "until": until,
        "group_by": group_by,
        "data": data,
        "total": {name: sum(row[name] for row in data) for name in UsageTotals.model_fields},
    }


def _with_total(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "total_tokens": row["prompt_tokens"] + row["completion_tokens"]}


def render_limits(owner: str, limits: Limits) -> dict[str, Any]:
    return {"object": "limits", "owner": owner, **limits.document()}
