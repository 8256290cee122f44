"""A job as an HTTP answer: body, status, and the headers that every such answer carries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api.dependencies import Parts, parts_of
from api.errors import describe, retry_after
from api.headers import base_url
from api.meter import count_refusal
from api.schemas.job_read import render_job
from core.errors import QueueTimeout, StoreUnavailable
from models.degradation import level_of
from models.lifecycle import Status
from models.repositories import outbox
from models.views import JobView
from queues.policy.admission import starts_in

_POSITIONS = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job stands in its queue, and when it is thought to start; None where nobody can say."""

    position: int
    starts_at: datetime | None


def json_answer(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status, headers, "application/json")


def etag(view: JobView) -> str:
    # Weak: the place in the queue moves within one version.
    return f'W/"{view.version}"'


def job_headers(view: JobView) -> dict[str, str]:
    return {"X-Job-Id": view.id, "X-Degradation-Level": str(level_of(view.degradation)), "ETag": etag(view)}


def render(
    request: Request,
    view: JobView,
    *,
    position: int | None = None,
    starts_at: datetime | None = None,
) -> dict[str, Any]:
    """Makes no query: where the place in the queue is not given, the estimate of the admission stands."""
    settings = parts_of(request).settings
    return render_job(
        view,
        base=base_url(request, settings.api.public_url),
        max_attempts=settings.worker.max_attempts,
        position=position,
        starts_at=starts_at,
    )


async def render_all(request: Request, views: Sequence[JobView]) -> list[dict[str, Any]]:
    """With the place in the queue of each that waits."""
    places = await places_of(parts_of(request), views)
    return [render(request, view, **_shown(places.get(view.id))) for view in views]


async def answer_job(request: Request, view: JobView) -> Response:
    [document] = await render_all(request, [view])
    return json_answer(document, headers=job_headers(view))


def outcome(request: Request, index: int, told: JobView | BaseException) -> dict[str, Any]:
    """One item of a bulk answer: its job, or what was wrong with it."""
    if isinstance(told, JobView):
        return {
            "index": index,
            "status": 200 if told.is_finished else 202,
            "job": render(request, told),
            "error": None,
        }
    if not isinstance(told, Exception):
        raise told
    problem = describe(told)
    count_refusal(problem.code)
    base = parts_of(request).settings.api.public_url
    body = problem.body(instance=request.scope["penstock_request_id"], base=base)
    return {"index": index, "status": problem.status, "job": None, "error": body}


def _shown(place: Place | None) -> dict[str, Any]:
    return {} if place is None else {"position": place.position, "starts_at": place.starts_at}


async def places_of(parts: Parts, views: Sequence[JobView]) -> dict[str, Place]:
    """Of those that wait and are not too far behind. The estimate is the one that admission makes."""
    waiting = [view for view in views if view.status is Status.QUEUED]
    if not waiting:
        return {}
    try:
        async with parts.database.read() as connection:
            found = await outbox.ahead(connection, waiting, limit=_POSITIONS)
    except StoreUnavailable:
        return {}
    now, places = parts.clock.now(), {}
    for view in waiting:
        if (ahead := found.get(view.id)) is not None:
            verdict = parts.board.verdict(view.model)
            seconds = starts_in(verdict, service_class=view.service_class, ahead=ahead.tokens)
            starts_at = now + timedelta(seconds=seconds) if seconds is not None else None
            places[view.id] = Place(ahead.jobs, starts_at)
    return places


def answer_submitted(
    request: Request, view: JobView, *, is_new: bool, waited: int | None = None, position: int | None = None
) -> Response:
    """202 while the job is unfinished, else 200."""
    headers = job_headers(view)
    document = render(request, view, position=position)
    headers["Location"] = document["urls"]["self"]
    if not is_new:
        headers["Idempotency-Replayed"] = "true"
    if waited is not None:
        headers["Preference-Applied"] = f"wait={waited}"
    if view.is_finished:
        return json_answer(document, 200, headers)
    headers["Retry-After"] = retry_after(expected_wait(parts_of(request)))
    return json_answer(document, 202, headers)


def refuse_late(view: JobView) -> None:
    """A call that waited for its answer and was never started is told so: 429, and when to come again."""
    if view.status is Status.EXPIRED and (view.error or {}).get("code") == QueueTimeout.code:
        raise QueueTimeout(f"{view.id} was not started within the longest wait of its class.")


def expected_wait(parts: Parts) -> float:
    """Seconds until what waits now is done, at the measured rate; 1 while none is known."""
    rate = parts.hot.last_total_rate()
    return parts.submission.waiting / rate if rate else 1.0
