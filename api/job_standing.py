"""Where a job of any tenant stands: what happened to it and, while it is queued, why it waits."""

from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from api.dependencies import Parts
from api.job_answers import places_of
from api.schemas.admin_read import render_timeline
from api.schemas.overview_read import render_glimpse
from core.errors import NotFound
from models.repositories import activity, changes, fleet, holds, jobs
from models.repositories.activity import Glimpse
from models.repositories.fleet import WorkerRow
from models.views import JobView
from queues.waiting_reason import Queued, WaitReason, why_it_waits

_ALIVE = timedelta(seconds=10)


async def read_standing(parts: Parts, job_id: str) -> dict[str, Any]:
    """Raises `NotFound`."""
    async with parts.database.read() as connection:
        job = await activity.job(connection, job_id)
        if job is None:
            raise NotFound("There is no such job.")
        history = await changes.timeline(connection, job.tenant_id, job_id)
        queued = await _queued(parts, connection, job)
    waits = await _reason(parts, *queued) if queued else None
    return {
        "object": "job_standing",
        **render_glimpse(job, parts.clock.now()),
        "version": len(history or ()),
        "max_attempts": parts.settings.worker.max_attempts,
        "waits": asdict(waits) if waits else None,
        "timeline": render_timeline(history or []),
    }


async def _queued(parts: Parts, connection: AsyncConnection, job: Glimpse) -> tuple[Queued, JobView] | None:
    """None where it does not wait, or no longer: it may be claimed between two statements."""
    entry = await activity.entry(connection, job.id)
    view = await jobs.read(connection, job.tenant_id, job.id)
    if entry is None or view is None:
        return None
    alive = max(_ALIVE, 3 * parts.settings.worker.heartbeat)
    workers = [w for w in await fleet.alive(connection, within=alive) if job.model in w.slots]
    [model] = await holds.activity(connection, [job.model])
    queued = Queued(
        model=job.model,
        state=entry.state,
        waits_since=entry.created_at,
        now=parts.clock.now(),
        available_at=entry.available_at,
        released_at=entry.released_at,
        attempt=job.attempt,
        hold=model.hold.value if model.hold else None,
        workers=len(workers),
        ready=len(_ready(workers)),
        detail=next((w.detail for w in workers if w.detail and w.state != "ready"), ""),
        slots=sum(w.slots[job.model] for w in _ready(workers)),
        running=model.running,
    )
    return queued, view


async def _reason(parts: Parts, queued: Queued, view: JobView) -> WaitReason:
    place = (await places_of(parts, [view])).get(view.id)
    if place is None:
        return why_it_waits(replace(queued, ahead=None))
    starts_in = place.starts_at - queued.now if place.starts_at else None
    return why_it_waits(replace(queued, ahead=place.position, starts_in=starts_in))


def _ready(workers: list[WorkerRow]) -> list[WorkerRow]:
    return [worker for worker in workers if worker.state == "ready"]
