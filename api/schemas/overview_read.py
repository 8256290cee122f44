"""The platform as operators see it: models with their queues, workers, jobs, batches, dead letters."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from api.schemas.admin_read import ChangeRead, DeadLetterRead, render_letter
from api.schemas.degradation import DegradationChangeRead, render_change
from api.schemas.job_read import Document, JobErrorRead
from models.degradation import Level, level_of
from models.repositories.activity import BatchGlimpse, Glimpse, Which
from models.repositories.dead_letters import Letter
from models.repositories.degradation import Change
from models.repositories.fleet import WorkerRow
from models.repositories.holds import Hold
from models.repositories.overview import Backlog, TenantLoad
from models.service_class import ServiceClass
from queues.observer import Overview

_CLASSES: Final = tuple(one.value for one in ServiceClass)


@dataclass(frozen=True, slots=True)
class Seen:
    """What belongs to a look beside the observer's: lists that are short."""

    jobs: Mapping[Which, Sequence[Glimpse]]
    tenants: Sequence[TenantLoad]
    changes: Sequence[Change]
    letters: Sequence[Letter]
    batches: Sequence[BatchGlimpse]
    holds: Mapping[str, tuple[Hold, datetime]]


class QueueOverview(Document):
    """`jobs_per_second` is the measured rate of endings; null: nothing ended lately."""

    service_class: ServiceClass
    waiting: int
    tokens: int
    released: int
    scheduled: int
    oldest_wait_ms: float
    predicted_wait_ms: float | None
    jobs_per_second: float | None
    is_shed: bool


class ModelOverview(Document):
    name: str
    state: Literal["serving", "paused", "draining"]
    level: int
    level_name: str
    rule: str
    reason: str
    since: datetime | None
    pinned_until: datetime | None
    workers: int
    slots: int
    running: int
    tokens_per_second: float
    cached_share: float | None
    first_token_ms: float | None
    queues: list[QueueOverview]


class WorkerOverview(Document):
    """`models` and `gpus` are as the worker said at its last heartbeat."""

    name: str
    state: str
    detail: str
    started_at: datetime
    seen_at: datetime
    models: dict[str, dict[str, Any]]
    gpus: list[dict[str, Any]]


class TenantOverview(Document):
    id: str
    name: str
    waiting: int
    tokens: int
    running: int
    oldest_wait_ms: float


class JobGlimpse(Document):
    """A job of any tenant, without what was asked and answered. `wait_ms`: from submission to its start."""

    id: str
    tenant_id: str
    tenant: str
    model: str
    service_class: ServiceClass
    priority: int
    status: str
    attempt: int
    worker: str | None
    batch_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    wait_ms: float | None
    run_ms: float | None
    tokens: int | None
    level: int
    error: JobErrorRead | None


class WaitReasonRead(Document):
    code: str
    sentence: str
    remedy: str


class JobStanding(JobGlimpse):
    """`waits` is null unless the job is queued."""

    object: Literal["job_standing"]
    version: int
    max_attempts: int
    waits: WaitReasonRead | None
    timeline: list[ChangeRead]


class JobGlimpsePage(Document):
    object: Literal["list"]
    data: list[JobGlimpse]


class BatchOverview(Document):
    """`has_failed_lines`: it ended with lines that may be run again."""

    id: str
    tenant_id: str
    status: str
    service_class: ServiceClass
    total: int
    loaded: int
    completed: int
    failed: int
    created_at: datetime
    expires_at: datetime
    finished_at: datetime | None
    retry_of: str | None
    has_failed_lines: bool


class Totals(Document):
    waiting: int
    tokens: int
    scheduled: int
    running: int
    slots: int
    workers: int
    dead_letters: int
    leases_overdue: int
    deliveries_open: int
    deliveries_late_ms: float


class JobLists(Document):
    recent: list[JobGlimpse]
    waiting: list[JobGlimpse]
    running: list[JobGlimpse]
    failing: list[JobGlimpse]


class ConcernRead(Document):
    tone: Literal["bad", "warn"]
    sentence: str
    remedy: str


class OverviewRead(Document):
    object: Literal["overview"]
    at: datetime
    look_ms: float
    attention: list[ConcernRead]
    totals: Totals
    models: list[ModelOverview]
    workers: list[WorkerOverview]
    tenants: list[TenantOverview]
    changes: list[DegradationChangeRead]
    jobs: JobLists
    dead_letters: list[DeadLetterRead]
    batches: list[BatchOverview]


def render_overview(
    now: Overview, seen: Seen, rates: Mapping[str, float], models: Iterable[str]
) -> dict[str, Any]:
    """All but `attention` and `look_ms`. A model that only waits, or only has a worker, is one, too."""
    waiting = {backlog.model for backlog in now.ledger.backlogs}
    served = {name for worker in now.workers for name in worker.slots}
    names = [*models, *sorted((waiting | served) - set(models))]
    return {
        "object": "overview",
        "at": now.at,
        "totals": _totals(now),
        "models": [_model(name, now, seen, rates) for name in names],
        "workers": [_worker(worker) for worker in now.workers],
        "tenants": [_tenant(load, now.at) for load in seen.tenants],
        "changes": [render_change(change) for change in seen.changes],
        "jobs": {which.value: [render_glimpse(one, now.at) for one in seen.jobs[which]] for which in Which},
        "dead_letters": [render_letter(letter) for letter in seen.letters],
        "batches": [render_batch_glimpse(batch) for batch in seen.batches],
    }


def _totals(now: Overview) -> dict[str, Any]:
    ledger = now.ledger
    return {
        "waiting": sum(backlog.jobs for backlog in ledger.backlogs),
        "tokens": sum(backlog.tokens for backlog in ledger.backlogs),
        "scheduled": sum(backlog.scheduled for backlog in ledger.backlogs),
        "running": sum(ledger.running.values()),
        "slots": sum(sum(worker.slots.values()) for worker in now.workers if worker.state == "ready"),
        "workers": len(now.workers),
        "dead_letters": ledger.dead_letters,
        "leases_overdue": ledger.overdue_leases,
        "deliveries_open": ledger.deliveries.open,
        "deliveries_late_ms": _age(ledger.deliveries.late_since, now.at),
    }


def _model(name: str, now: Overview, seen: Seen, rates: Mapping[str, float]) -> dict[str, Any]:
    verdict = now.verdicts.get(name)
    state = verdict.state if verdict else None
    level = state.level if state else Level.FULL
    workers = [worker for worker in now.workers if name in worker.slots]
    stats = [worker.stats.get("models", {}).get(name, {}) for worker in workers]
    first_token = verdict.pressure.first_token if verdict else None
    return {
        "name": name,
        "state": seen.holds[name][0].value if name in seen.holds else "serving",
        "level": int(level),
        "level_name": level.label,
        "rule": state.rule if state else "unknown",
        "reason": state.reason if state else "nothing was measured yet",
        "since": _time(state.since if state else None),
        "pinned_until": _time(state.pinned_until if state else None),
        "workers": len(workers),
        "slots": sum(worker.slots[name] for worker in workers if worker.state == "ready"),
        "running": now.ledger.running.get(name, 0),
        "tokens_per_second": round(sum(one.get("tokens_per_second") or 0 for one in stats), 1),
        "cached_share": _mean([one.get("cached_share") for one in stats]),
        "first_token_ms": round(first_token * 1000, 1) if first_token is not None else None,
        "queues": [_queue(_backlog(now, name, one), now, rates) for one in _CLASSES],
    }


def _backlog(now: Overview, model: str, service_class: str) -> Backlog:
    for backlog in now.ledger.backlogs:
        if (backlog.model, backlog.service_class) == (model, service_class):
            return backlog
    return Backlog(model, service_class, 0, 0, 0, 0, None, None)


def _queue(backlog: Backlog, now: Overview, rates: Mapping[str, float]) -> dict[str, Any]:
    predicted = now.predicted_wait(backlog)
    verdict = now.verdicts.get(backlog.model)
    rate = rates.get(f"{backlog.model}/{backlog.service_class}")
    return {
        "service_class": backlog.service_class,
        "waiting": backlog.jobs,
        "tokens": backlog.tokens,
        "released": backlog.released,
        "scheduled": backlog.scheduled,
        "oldest_wait_ms": _age(backlog.oldest, now.at),
        "predicted_wait_ms": None if predicted is None else round(predicted * 1000, 1),
        "jobs_per_second": None if rate is None else round(rate, 2),
        "is_shed": verdict is not None and backlog.service_class in verdict.state.shed,
    }


def _worker(worker: WorkerRow) -> dict[str, Any]:
    told = worker.stats.get("models", {})
    return {
        "name": worker.name,
        "state": worker.state,
        "detail": worker.detail,
        "started_at": worker.started_at,
        "seen_at": worker.seen_at,
        "models": {name: {"slots": slots, **told.get(name, {})} for name, slots in worker.slots.items()},
        "gpus": worker.stats.get("gpus", []),
    }


def _tenant(load: TenantLoad, at: datetime) -> dict[str, Any]:
    return {
        "id": load.id,
        "name": load.name,
        "waiting": load.waiting,
        "tokens": load.tokens,
        "running": load.running,
        "oldest_wait_ms": _age(load.oldest, at),
    }


def render_glimpse(job: Glimpse, at: datetime) -> dict[str, Any]:
    """A job that did not start has waited until now, or until it ended."""
    ended = job.finished_at or at
    values = asdict(job)
    usage, degradation = values.pop("usage"), values.pop("degradation")
    return values | {
        "wait_ms": _age(job.created_at, job.started_at or ended),
        "run_ms": _age(job.started_at, ended) if job.started_at else None,
        "tokens": usage.get("total_tokens") if usage else None,
        "level": level_of(degradation),
    }


def render_batch_glimpse(batch: BatchGlimpse) -> dict[str, Any]:
    return asdict(batch)


def _age(since: datetime | None, at: datetime) -> float:
    return round(max(0.0, (at - since).total_seconds() * 1000), 1) if since else 0.0


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 3) if known else None
