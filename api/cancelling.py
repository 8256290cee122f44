"""Cancels jobs on behalf of whoever may."""

from collections.abc import Sequence

from starlette.background import BackgroundTask

from api.dependencies import Parts
from core import metrics
from models.repositories import jobs, submission
from models.views import JobView
from queues.cancel_notices import publish_cancels


async def cancel_unwatched(parts: Parts, view: JobView, key: str | None) -> None:
    """Nobody waits for the answer any more; a running job leaves the GPU.

    Under its idempotency `key` nobody was answered, and whoever asks again is to get an answer.
    """
    _, tell_workers = await cancel_jobs(parts, view.tenant_id, [view.id], frees=key)
    await tell_workers()


async def cancel_jobs(
    parts: Parts, tenant_id: str, job_ids: Sequence[str], *, frees: str | None = None
) -> tuple[dict[str, JobView], BackgroundTask]:
    """The tenant's own among them, as they are now, and what remains to be done after the answer.

    They ended where they waited and are asked to end where they run: a few statements, however many.
    `frees` is the idempotency key of one of them that may be used anew.
    """
    expires_at = parts.clock.now() + parts.settings.upkeep.retention
    async with parts.database.begin() as connection:
        changed = set(await jobs.cancel_all(connection, tenant_id, job_ids, expires_at=expires_at))
        if frees is not None:
            for job_id in changed:
                await submission.free_key(connection, tenant_id, frees, job_id=job_id)
    async with parts.database.read() as connection:
        views = await jobs.read_many(connection, tenant_id, job_ids)
    for view in views:
        if view.id in changed and view.is_finished:
            metrics.FINISHED.labels(view.model, view.service_class, view.status.value).inc()
            parts.notices.finished(view)
    running = [view.id for view in views if view.id in changed and not view.is_finished]
    notice = BackgroundTask(publish_cancels, parts.redis, parts.settings.broker.namespace, running)
    return {view.id: view for view in views}, notice
