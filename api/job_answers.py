"""A job as an HTTP answer: body, status, and the headers that every such answer carries."""

from datetime import timedelta
from typing import Any

import orjson
from starlette.background import BackgroundTask
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

_POSITIONS = 1000


def json_answer(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(document), status, headers, "application/json")


def etag(view: JobView) -> str:
    # Weak: the place in the queue moves within one version.
    return f'W/"{view.version}"'


def job_headers(view: JobView) -> dict[str, str]:
    return {"X-Job-Id": view.id, "X-Degradation-Level": str(level_of(view.degradation)), "ETag": etag(view)}


def render(request: Request, view: JobView, *, position: int | None = None) -> dict[str, Any]:
    """Without the place in the queue, so without a query."""
    settings = parts_of(request).settings
    base = base_url(request, settings.api.public_url)
    return render_job(view, base=base, max_attempts=settings.worker.max_attempts, position=position)


async def answer_job(request: Request, view: JobView, *, after: BackgroundTask | None = None) -> Response:
    parts = parts_of(request)
    position = await _position(parts, view)
    rate = None
    if position is not None:
        rate = await parts.hot.rate(view.model, view.service_class)
    document = render_job(
        view,
        base=base_url(request, parts.settings.api.public_url),
        max_attempts=parts.settings.worker.max_attempts,
        position=position,
        starts_in=timedelta(seconds=position / rate) if position is not None and rate else None,
        now=parts.clock.now(),
    )
    answer = json_answer(document, headers=job_headers(view))
    answer.background = after
    return answer


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


async def _position(parts: Parts, view: JobView) -> int | None:
    if view.status is not Status.QUEUED:
        return None
    try:
        async with parts.database.read() as connection:
            return await outbox.position(connection, view, limit=_POSITIONS)
    except StoreUnavailable:
        return None


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
