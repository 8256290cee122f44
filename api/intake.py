"""From a checked request to an accepted job."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from api.auth import Caller
from api.dependencies import Parts
from core.errors import IdempotencyMismatch, InvalidField, QueueFull, RateLimited
from core.ids import new_id
from models.degradation import level_of, shown
from models.lifecycle import Status
from models.repositories.submission import FIRST_VERSION, READY_TIMINGS, NewJob, Reception
from models.service_class import clamp
from models.views import JobView, webhook_view
from queues.events import EventKind
from queues.follow_ups import with_follow_up
from queues.policy.admission import interactive_limit
from queues.prompts import fingerprint
from queues.requests.capabilities import check_capabilities
from queues.requests.job_request import JobCreate

_REUSED: Final = "This Idempotency-Key was used with another body; use a new key."
_FURTHEST: Final = timedelta(days=30)
# What the job's row and payload keep in columns of their own.
_NOT_KEPT: Final = {"model", "service_class", "priority", "deadline", "not_before", "metadata", "tags"}


@dataclass(frozen=True, slots=True)
class Intake:
    """What became of a submission. `is_new` is false where an earlier job answers."""

    view: JobView
    is_new: bool
    position: int | None = None


async def prepare(
    parts: Parts,
    caller: Caller,
    wanted: JobCreate,
    document: dict[str, Any],
    *,
    key: str | None,
    interactive: bool = False,
) -> NewJob:
    """Everything that is checked before the job exists. Raises `InvalidField` and `LimitReached`.

    `interactive`: somebody waits for the answer, so that without a `max_wait_ms` of its own the job may be
    queued for as long as its class allows such calls.
    """
    now = parts.clock.now()
    model = parts.catalogue.get(wanted.model)
    check_capabilities(model, wanted)
    _check_times(wanted, now)
    if wanted.webhook is not None:
        await parts.webhooks.admit_job_url(caller.tenant_id, wanted.webhook.url)
    asked = _asked(document)
    demand = await parts.meter.measure(model, asked)
    asked["max_tokens"] = demand.max_tokens
    weight = parts.door.weigh(
        caller,
        prompt_tokens=demand.prompt_tokens,
        max_tokens=demand.max_tokens,
        service_class=clamp(wanted.service_class, caller.max_class),
    )
    await parts.door.admit(caller, tokens=weight.cost)
    starts = wanted.not_before if wanted.not_before and wanted.not_before > now else None
    service_class = weight.service_class.value
    wait = timedelta(milliseconds=wanted.max_wait_ms) if wanted.max_wait_ms else None
    if wait is None and interactive:
        wait = interactive_limit(parts.settings.overload.interactive, service_class)
    return NewJob(
        id=new_id("job"),
        tenant_id=caller.tenant_id,
        model=model.name,
        service_class=service_class,
        priority=wanted.priority,
        cost=weight.cost,
        fingerprint=fingerprint(document),
        request=asked,
        created_at=now,
        prefix=demand.prefix,
        prefix_tokens=demand.prefix_tokens,
        trail=demand.trail,
        not_before=starts,
        deadline=wanted.deadline,
        queue_deadline=(starts or now) + wait if wait else None,
        result_ttl=wanted.result_ttl,
        metadata=dict(wanted.metadata),
        tags=tuple(wanted.tags),
        idempotency_key=key,
        webhook=wanted.webhook.model_dump() if wanted.webhook else None,
        key_id=caller.key_id,
        most_of_tenant=caller.bounds.tenant.concurrent_jobs or 0,
        most_of_key=caller.bounds.key.concurrent_jobs or 0,
    )


def _asked(document: dict[str, Any]) -> dict[str, Any]:
    """The request as it came, so that a retry can be checked like the first."""
    asked = {name: value for name, value in document.items() if value is not None and name not in _NOT_KEPT}
    if isinstance(asked.get("stop"), str):
        asked["stop"] = [asked["stop"]]
    return asked


def _check_times(wanted: JobCreate, now: datetime) -> None:
    check_deadline(wanted.deadline, now)
    if wanted.not_before is None:
        return
    if wanted.not_before > now + _FURTHEST:
        raise InvalidField("not_before", "Must be within the next 30 days.")
    if wanted.deadline is not None and wanted.deadline <= wanted.not_before:
        raise InvalidField("deadline", "Must be after not_before.")


def check_deadline(deadline: datetime | None, now: datetime) -> None:
    if deadline is not None and deadline <= now:
        raise InvalidField("deadline", "Is in the past; leave it out, or give a later one.")


async def receive(parts: Parts, job: NewJob, *, is_repeat: bool = False) -> Intake:
    """Accepts the job, or finds the one that this request meant. Raises `IdempotencyMismatch`.

    `is_repeat`: the client says that it sends this again, so an identical job in flight is the one.
    """
    if is_repeat and job.idempotency_key is None:
        found = await parts.submission.find_in_flight(job.tenant_id, job.fingerprint)
        if found is not None:
            return Intake(await parts.reader.read(job.tenant_id, found), is_new=False)
    try:
        admitted = await parts.admission.admit(job)
    except QueueFull:
        # What was accepted under this key is answered, however full the queue is now.
        if job.idempotency_key is None or (known := await _known(parts, job)) is None:
            raise
        return known
    job = with_follow_up(admitted.job, job)
    receipt = await parts.submission.submit(job)
    match receipt.reception:
        case Reception.CREATED:
            view = as_view(job)
            _tell(parts, view)
            return Intake(view, is_new=True, position=admitted.position)
        case Reception.REPLAYED:
            return Intake(await parts.reader.read(job.tenant_id, receipt.job_id), is_new=False)
        case Reception.MISMATCH:
            raise IdempotencyMismatch(_REUSED)
        case Reception.CROWDED:
            raise RateLimited(
                "As many jobs of this tenant or key are unfinished as may be at once; wait until one ends."
            )


async def _known(parts: Parts, job: NewJob) -> Intake | None:
    found = await parts.submission.find_by_key(job.tenant_id, job.idempotency_key or "")
    if found is None:
        return None
    job_id, asked = found
    if asked != job.fingerprint:
        raise IdempotencyMismatch(_REUSED)
    return Intake(await parts.reader.read(job.tenant_id, job_id), is_new=False)


def _tell(parts: Parts, view: JobView) -> None:
    """Those who follow the job learn at once what it gets."""
    if level_of(view.degradation):
        parts.notices.emit(view.id, EventKind.DEGRADED, shown(view.degradation))
    if view.is_finished:
        parts.notices.finished(view)


def as_view(job: NewJob) -> JobView:
    """The accepted job as its readers will find it."""
    waiting = JobView(
        id=job.id,
        tenant_id=job.tenant_id,
        model=job.model,
        service_class=job.service_class,
        priority=job.priority,
        status=Status.QUEUED,
        version=1,
        created_at=job.created_at,
        deadline=job.deadline,
        batch_id=job.batch_id,
        retry_of=job.retry_of,
        follow_up=job.follow_up,
        follow_up_of=job.follow_up_of,
        metadata=job.metadata,
        tags=list(job.tags),
        webhook=webhook_view(job.webhook),
        degradation=job.degradation.document() if job.degradation else None,
        estimated_start_at=job.estimated_start_at,
    )
    if job.answer is None:
        return waiting
    return replace(
        waiting,
        status=Status.COMPLETED,
        version=FIRST_VERSION + 1,
        finished_at=job.created_at,
        expires_at=job.answer.expires_at,
        output=job.answer.output,
        usage=job.answer.usage,
        timings=READY_TIMINGS,
    )
