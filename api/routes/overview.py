"""The platform at a glance: read once, or watched as server-sent events."""

import time
from collections.abc import AsyncIterator
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from api import openapi
from api.dependencies import AdminCaller, admin_caller, parts_of
from api.job_answers import json_answer
from core.errors import Forbidden, StoreUnavailable, Unauthenticated

router = APIRouter(tags=["operation"], default_response_class=Response)

_HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_ASK_AGAIN: Final = 10.0  # seconds between looks at whether the viewer may still watch


@router.get(
    "/v1/admin/overview",
    summary="Queues, levels, workers, jobs, batches and dead letters, of all tenants",
    operation_id="read_overview",
    responses={200: openapi.answer("Now.", "OverviewRead"), **openapi.problems()},
)
async def read_overview(request: Request, _: AdminCaller) -> Response:
    return json_answer(await parts_of(request).overviews.look())


@router.get(
    "/v1/admin/overview/events",
    summary="Watch the same, about once a second",
    operation_id="watch_overview",
    response_class=StreamingResponse,
    responses={
        200: openapi.answer("Events: overview; trouble, with a reason; expired, at the end.")
        | {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **openapi.problems(),
    },
)
async def watch_overview(request: Request, _: AdminCaller) -> StreamingResponse:
    return StreamingResponse(_watch(request), media_type="text/event-stream", headers=_HEADERS)


async def _watch(request: Request) -> AsyncIterator[bytes]:
    """A key that is revoked, or a session that ends, ends what it watches."""
    asked = time.monotonic()
    async for frame in parts_of(request).overviews.feed.frames():
        if time.monotonic() - asked > _ASK_AGAIN:
            asked = time.monotonic()
            if not await _may_watch(request):
                yield b"event: expired\ndata: {}\n\n"
                return
        yield frame.event()


async def _may_watch(request: Request) -> bool:
    try:
        await admin_caller(request)
    except (Unauthenticated, Forbidden):
        return False
    except StoreUnavailable:
        return True
    return True
