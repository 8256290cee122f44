"""The full answer after a degraded one: a bulk job that waits until the pressure of its model is gone."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.ids import new_id
from models.degradation import Level
from models.dialect import Database
from models.repositories import outbox
from models.repositories.submission import NewJob
from models.service_class import ServiceClass
from queues.policy.state import State
from queues.prompts import fingerprint
from queues.relay import BELL


def with_follow_up(admitted: NewJob, asked: NewJob) -> NewJob:
    """The admitted job, and beside it a second one where its caller wants the full answer besides.

    `asked` is the job as it was before admission: its model and its limits are the second one's.
    """
    wants = (asked.request.get("degradation") or {}).get("follow_up") is True
    if not wants or admitted.degradation is None or admitted.degradation.level is Level.FULL:
        return admitted
    second = replace(
        asked,
        id=new_id("job"),
        service_class=ServiceClass.BULK.value,
        request=_full(asked.request),
        follow_up_of=admitted.id,
        fingerprint=fingerprint({"follow_up_of": admitted.id}),
        # Neither the deadline nor the key of the first: it is not waited for, and submitted only with it.
        deadline=None,
        queue_deadline=None,
        idempotency_key=None,
        most_of_tenant=0,
        most_of_key=0,
    )
    return replace(admitted, follow_up=second.id, companion=second)


def _full(request: dict[str, Any]) -> dict[str, Any]:
    return {**request, "degradation": {"allow": []}}


async def release_follow_ups(database: Database, states: Mapping[str, State]) -> int:
    """Lets those of models without pressure go; the number of them. While nobody knows, they wait."""
    calm = [model for model, state in states.items() if state.level is Level.FULL]
    if not calm:
        return 0
    async with database.begin() as connection:
        released = await outbox.release_follow_ups(connection, calm)
    if released:
        await database.wakeups.ring(BELL)
    return released
