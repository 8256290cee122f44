"""Cancels a job on behalf of whoever may."""

from api.dependencies import Parts
from models.repositories import jobs
from models.views import JobView
from queues.cancel_notices import publish_cancel


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
