"""`GET /v1/jobs/{id}/events`: what happens to a job, as server-sent events."""

from collections.abc import AsyncIterator
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request
from starlette.responses import StreamingResponse

from api import openapi
from api.dependencies import JobsCaller, parts_of
from api.job_answers import render
from api.routes.job_ids import JobId
from core.errors import EventsUnavailable, NotFound, StoreUnavailable
from models.views import JobView
from queues.events import EventKind
from queues.job_reader import JobReader

router = APIRouter(tags=["jobs"])

_KEEP_ALIVE: Final = 15.0  # seconds
_CHECK_EVERY: Final = 4  # silent keep-alives before the truth is looked up
_COMMENT: Final = b": keep-alive\n\n"
_HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@router.get(
    "/v1/jobs/{job_id}/events",
    summary="Follow a job",
    operation_id="follow_job",
    response_class=StreamingResponse,
    responses={
        200: openapi.answer("Events: status, token, reset, degraded, done.", None, "X-Job-Id")
        | {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        **openapi.problems(404, 422),
    },
    openapi_extra={"parameters": [openapi.LAST_EVENT_ID]},
)
async def follow_job(request: Request, caller: JobsCaller, job_id: JobId) -> StreamingResponse:
    view = await parts_of(request).reader.read(caller.tenant_id, job_id)
    follower = _Follower(request, view)
    return StreamingResponse(
        follower.stream(request.headers.get("last-event-id")),
        media_type="text/event-stream",
        headers={**_HEADERS, "X-Job-Id": job_id},
    )


class _Follower:
    """One client that follows one job; `view` is the last truth it was told."""

    def __init__(self, request: Request, view: JobView) -> None:
        self._request = request
        self._parts = parts_of(request)
        self._reader: JobReader = self._parts.reader
        self._view = view
        self._last_id: str | None = None

    async def stream(self, after: str | None) -> AsyncIterator[bytes]:
        """Ends after `done`, when the job is gone, or when the process drains."""
        if not after:
            yield self._status()
        # A client that resumes still wants the tokens that it missed, unless they were erased.
        if not self._view.is_finished or (after and self._view.erased_at is None):
            try:
                async for piece in self._follow(after):
                    yield piece
            except EventsUnavailable:
                async for piece in self._poll():
                    yield piece
        if self._view.is_finished:
            yield self._done()

    async def _follow(self, after: str | None) -> AsyncIterator[bytes]:
        """From the stream, up to `done`."""
        silent = 0
        async with self._parts.events.subscribe(self._view.id, after) as subscription:
            while not self._view.is_finished or silent == 0:
                patience = 1.0 if self._view.is_finished else _KEEP_ALIVE
                event = await subscription.next(patience)
                if event is None:
                    silent += 1
                    yield _COMMENT
                    if silent % _CHECK_EVERY == 0 and not await self._look():
                        return
                    continue
                silent = 0
                if event.kind == EventKind.DONE:
                    await self._look()
                    self._last_id = event.id
                    return
                yield _encode(event.kind, event.data, event.id)

    async def _poll(self) -> AsyncIterator[bytes]:
        """From the truth, once a second."""
        told = self._view.status
        while not self._view.is_finished:
            if await self._reader.tick() or not await self._look():
                return
            if self._view.status is not told and not self._view.is_finished:
                told = self._view.status
                yield self._status()
            else:
                yield _COMMENT

    async def _look(self) -> bool:
        """False when the job is gone. A database that is down is asked again later."""
        try:
            self._view = await self._reader.read(self._view.tenant_id, self._view.id)
        except NotFound:
            return False
        except StoreUnavailable:
            return True
        return True

    def _status(self) -> bytes:
        attempt = {"status": self._view.status, "version": self._view.version, "attempt": self._view.attempt}
        return _encode(EventKind.STATUS, attempt)

    def _done(self) -> bytes:
        return _encode(EventKind.DONE, render(self._request, self._view), self._last_id)


def _encode(kind: str, data: dict[str, Any], event_id: str | None = None) -> bytes:
    name = f"id: {event_id}\nevent: {kind}\ndata: " if event_id else f"event: {kind}\ndata: "
    return name.encode() + orjson.dumps(data) + b"\n\n"
