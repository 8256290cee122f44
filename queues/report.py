"""What the last while was like: outcomes, waits, tokens, levels and what it cost. Pure."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Final, Protocol

from models.degradation import level_of

_MINUTES: Final = 120  # the most points that a line has
_TENANTS: Final = 10
_ERRORS: Final = 10
_BAD: Final = frozenset({"failed", "expired"})
_MILLION: Final = 1_000_000


class Ended(Protocol):
    """A job: see `models.repositories.outcomes`."""

    @property
    def tenant(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def service_class(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def started_at(self) -> datetime | None: ...
    @property
    def finished_at(self) -> datetime | None: ...
    @property
    def usage(self) -> dict[str, Any] | None: ...
    @property
    def error(self) -> dict[str, Any] | None: ...
    @property
    def degradation(self) -> dict[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class LevelChange:
    model: str
    at: datetime
    before: int
    after: int


class Shift(Protocol):
    """A time that a worker was there: see `models.repositories.fleet`."""

    @property
    def models(self) -> Sequence[str]: ...
    @property
    def started_at(self) -> datetime: ...
    @property
    def ended_at(self) -> datetime: ...


@dataclass(frozen=True, slots=True)
class Period:
    """What is reported on. `levels` are those now, `prices` of an hour of one worker, by model."""

    since: datetime
    until: datetime
    jobs: Sequence[Ended]
    is_partial: bool = False
    changes: Sequence[LevelChange] = ()
    levels: Mapping[str, int] = field(default_factory=dict)
    shifts: Sequence[Shift] = ()
    prices: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Tokens:
    prompt: int = 0
    cached: int = 0
    completion: int = 0

    def add(self, usage: Mapping[str, Any] | None) -> None:
        used = usage or {}
        self.prompt += used.get("prompt_tokens") or 0
        self.completion += used.get("completion_tokens") or 0
        self.cached += (used.get("prompt_tokens_details") or {}).get("cached_tokens") or 0

    def document(self) -> dict[str, int]:
        return {"prompt": self.prompt, "cached": self.cached, "completion": self.completion}


def summarise(period: Period) -> dict[str, Any]:
    """The report as JSON has it. Jobs are those that were submitted within the period."""
    groups: defaultdict[tuple[str, str], list[Ended]] = defaultdict(list)
    for job in period.jobs:
        groups[job.model, job.service_class].append(job)
    return {
        "object": "report",
        "since": period.since,
        "until": period.until,
        "is_partial": period.is_partial,
        "total": _group(period.jobs),
        "groups": [
            {"model": model, "service_class": service_class, **_group(jobs)}
            for (model, service_class), jobs in sorted(groups.items())
        ],
        "tenants": _tenants(period.jobs),
        "errors": _errors(period.jobs),
        "levels": _levels(period),
        "cost": _cost(period),
        "timeline": _timeline(period),
    }


def _group(jobs: Sequence[Ended]) -> dict[str, Any]:
    tokens = _Tokens()
    for job in jobs:
        tokens.add(job.usage)
    waits = [_milliseconds(job.created_at, job.started_at) for job in jobs if job.started_at]
    runs = [
        _milliseconds(job.started_at, job.finished_at) for job in jobs if job.started_at and job.finished_at
    ]
    return {
        "jobs": len(jobs),
        "outcomes": dict(sorted(Counter(job.status for job in jobs).items())),
        "answers_by_level": dict(
            sorted(
                Counter(str(level_of(job.degradation)) for job in jobs if job.status == "completed").items()
            )
        ),
        "wait_ms": _spread(waits),
        "run_ms": _spread(runs),
        "tokens": tokens.document(),
    }


def _milliseconds(since: datetime | None, until: datetime | None) -> float:
    return (until - since).total_seconds() * 1000 if since and until else 0.0


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    return {"p50": percentile(values, 0.5), "p95": percentile(values, 0.95), "max": percentile(values, 1.0)}


def percentile(values: Sequence[float], part: float) -> float | None:
    """The nearest rank: a value that somebody really had. None of nothing."""
    if not values:
        return None
    return round(sorted(values)[max(0, ceil(part * len(values)) - 1)], 1)


def _tenants(jobs: Sequence[Ended]) -> list[dict[str, Any]]:
    """The largest users first."""
    sums: defaultdict[str, _Tokens] = defaultdict(_Tokens)
    counts = Counter(job.tenant for job in jobs)
    for job in jobs:
        sums[job.tenant].add(job.usage)
    largest = sorted(sums, key=lambda name: (-(sums[name].prompt + sums[name].completion), name))
    return [
        {"tenant": name, "jobs": counts[name], "tokens": sums[name].document()} for name in largest[:_TENANTS]
    ]


def _errors(jobs: Iterable[Ended]) -> list[dict[str, Any]]:
    codes = Counter((job.error or {}).get("code", "unknown") for job in jobs if job.status in _BAD)
    return [{"code": code, "jobs": count} for code, count in codes.most_common(_ERRORS)]


def _levels(period: Period) -> list[dict[str, Any]]:
    """Seconds that each model spent at each level."""
    models = sorted({*period.levels, *(change.model for change in period.changes)})
    return [{"model": model, "seconds": _seconds_at(model, period)} for model in models]


def _seconds_at(model: str, period: Period) -> dict[str, float]:
    changes = sorted((c for c in period.changes if c.model == model), key=lambda change: change.at)
    level = changes[0].before if changes else period.levels.get(model, 0)
    at, spent = period.since, defaultdict[str, float](float)
    for change in changes:
        spent[str(level)] += (change.at - at).total_seconds()
        at, level = change.at, change.after
    spent[str(level)] += (period.until - at).total_seconds()
    return {name: round(seconds, 1) for name, seconds in sorted(spent.items())}


def _cost(period: Period) -> list[dict[str, Any]]:
    """Of all workers, those that have gone as well, for as long as they were there; idle time costs, too."""
    found = []
    for model, price in sorted(period.prices.items()):
        spent = (_within(period, one) for one in period.shifts if model in one.models)
        hours = sum(spent, timedelta()) / timedelta(hours=1)
        tokens = _Tokens()
        for job in period.jobs:
            if job.model == model:
                tokens.add(job.usage)
        all_tokens = tokens.prompt + tokens.completion
        cost = hours * price
        found.append(
            {
                "model": model,
                "worker_hours": round(hours, 3),
                "cost": round(cost, 4),
                "tokens": all_tokens,
                "per_million_tokens": round(cost / all_tokens * _MILLION, 4)
                if all_tokens and price
                else None,
            }
        )
    return found


def _within(period: Period, shift: Shift) -> timedelta:
    return max(timedelta(), min(shift.ended_at, period.until) - max(shift.started_at, period.since))


def _timeline(period: Period) -> list[dict[str, Any]]:
    """Points of equal length: what was submitted in each, and what became of it."""
    step = max(timedelta(minutes=1), (period.until - period.since) / _MINUTES)
    points = max(1, ceil((period.until - period.since) / step))
    buckets: list[list[Ended]] = [[] for _ in range(points)]
    for job in period.jobs:
        buckets[min(points - 1, max(0, int((job.created_at - period.since) / step)))].append(job)
    return [_point(period.since + number * step, jobs) for number, jobs in enumerate(buckets)]


def _point(at: datetime, jobs: Sequence[Ended]) -> dict[str, Any]:
    tokens = _Tokens()
    for job in jobs:
        tokens.add(job.usage)
    waits = [_milliseconds(job.created_at, job.started_at) for job in jobs if job.started_at]
    return {
        "at": at,
        "submitted": len(jobs),
        "failed": sum(job.status in _BAD for job in jobs),
        "degraded": sum(level_of(job.degradation) > 0 for job in jobs),
        "tokens": tokens.prompt + tokens.completion,
        "wait_p95_ms": percentile(waits, 0.95),
    }
