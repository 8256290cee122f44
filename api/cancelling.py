"""Cancels a job on behalf of whoever may."""

from starlette.background import BackgroundTask

from api.dependencies import Parts
from core import metrics
from models.repositories import jobs
from models.views import JobView
from queues.cancel_notices import publish_cancel


async def cancel(parts: Parts, tenant_id: str, job_id: str) -> tuple[JobView, BackgroundTask | None]:
    """The job as it is now, and what remains to be done after the answer. Raises `NotFound`."""
    expires_at = parts.clock.now() + parts.settings.upkeep.retention
    async with parts.database.begin() as connection:
        changed = await jobs.cancel(connection, tenant_id, job_id, expires_at=expires_at)
    view = await parts.reader.read_truth(tenant_id, job_id)
    if changed and view.is_finished:
        metrics.FINISHED.labels(view.model, view.service_class, view.status.value).inc()
        parts.notices.finished(view)
    elif changed:
        return view, BackgroundTask(publish_cancel, parts.redis, parts.settings.broker.namespace, job_id)
    return view, None


async def cancel_unwatched(parts: Parts, view: JobView) -> None:
    """Nobody waits for the answer any more; a running job leaves the GPU."""
    expires_at = parts.clock.now() + parts.settings.upkeep.retention
    async with parts.database.begin() as connection:
        changed = await jobs.cancel(connection, view.tenant_id, view.id, expires_at=expires_at)
    if not changed:
        return
    now = await parts.reader.read_truth(view.tenant_id, view.id)
    if now.is_finished:
        parts.notices.finished(now)
    else:
        await publish_cancel(parts.redis, parts.settings.broker.namespace, view.id)
