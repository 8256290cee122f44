"""One OpenAI call that waits for its job: to its end, or in pieces; and what ends the wait early."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from api.dependencies import Parts
from core.errors import EventsUnavailable, JobFailed, QueueTimeout, StillRunning, Unavailable, WorkerLost
from models.lifecycle import Status
from models.views import JobView
from queues.events import Event, EventKind


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of the answer; `None` in `text` says that nothing came for a while."""

    text: str | None
    reasoning: str = ""


class Awaited:
    """`is_ours`: this call made the job. A job ends with the last call here that waits for it.

    `key` is the call's idempotency key, which is good for another job where this one is ended so.

    Whoever makes one of these ends it with `leave` or `release`.
    """

    def __init__(
        self,
        parts: Parts,
        view: JobView,
        *,
        starts_within: timedelta,
        is_ours: bool,
        key: str | None = None,
    ) -> None:
        now = asyncio.get_running_loop().time()
        self.view = view
        self._parts = parts
        self._key = key
        self._waits = True
        self._start_by = now + starts_within.total_seconds()
        self._end_by = now + parts.settings.overload.interactive.wait.total_seconds()
        self._started = False
        self._text = ""
        self._reasoning = ""
        self._next_index = 0
        parts.watchers.join(view.id, made=is_ours)

    async def finish(self) -> JobView:
        """Raises `QueueTimeout`, `StillRunning`, `JobFailed` and `Unavailable`."""
        while not self.view.is_finished:
            self.view = await self._parts.reader.until_finished(self.view, self._left())
            await self._judge()
        return self.completed()

    def completed(self) -> JobView:
        if self.view.status is Status.COMPLETED:
            return self.view
        error = self.view.error or {}
        code = error.get("code", f"job_{self.view.status.value}")
        message = error.get("message", f"The job was {self.view.status.value}.")
        if code == QueueTimeout.code:
            raise QueueTimeout(message)
        raise JobFailed(code, message, job_id=self.view.id)

    async def pieces(self) -> AsyncIterator[Piece]:
        """What is new, as it comes; at the end whatever the events left out. Raises as `finish` does."""
        try:
            async for piece in self._live():
                yield piece
        except EventsUnavailable:
            pass
        await self.finish()
        output = self.view.output or {}
        text, reasoning = output.get("text") or "", output.get("reasoning") or ""
        if not (text.startswith(self._text) and reasoning.startswith(self._reasoning)):
            raise WorkerLost("The worker was lost after part of the answer was sent; ask again.")
        yield Piece(text[len(self._text) :], reasoning[len(self._reasoning) :])

    def leave(self) -> bool:
        """Waits no more. True where the job has lost its last caller."""
        waited, self._waits = self._waits, False
        return waited and self._parts.watchers.leave(self.view.id) and not self.view.is_finished

    async def release(self) -> None:
        """The caller is gone, or was told to go."""
        if self.leave():
            await self._parts.cancels.cancel(self.view.tenant_id, self.view.id, frees=self._key)

    async def _live(self) -> AsyncIterator[Piece]:
        pause = self._parts.settings.overload.interactive.keep_alive.total_seconds()
        if self.view.is_finished:
            return
        async with self._parts.events.subscribe(self.view.id) as subscription:
            while True:
                event = await subscription.next(min(pause, self._left()))
                if event is None:
                    self.view = await self._parts.reader.read(self.view.tenant_id, self.view.id)
                    if self.view.is_finished:
                        return
                    await self._judge()
                    yield Piece(None)
                elif event.kind == EventKind.DONE:
                    return
                else:
                    self._note(event)
                    if event.kind == EventKind.TOKEN and (piece := self._piece(event.data)):
                        yield piece

    def _note(self, event: Event) -> None:
        self._started = (
            self._started or event.kind == EventKind.TOKEN or event.data.get("status") == "running"
        )
        if event.kind == EventKind.RESET:
            if self._text or self._reasoning:
                raise WorkerLost("The worker was lost after part of the answer was sent; ask again.")
            self._next_index = 0

    def _piece(self, data: dict[str, Any]) -> Piece | None:
        if data["index"] != self._next_index:
            return None  # events were dropped: the rest comes from the finished job
        self._next_index += data["count"]
        piece = Piece(data["text"], data["reasoning"] or "")
        self._text += data["text"]
        self._reasoning += piece.reasoning
        return piece

    def _left(self) -> float:
        now = asyncio.get_running_loop().time()
        return max(0.001, (self._end_by if self._started else min(self._start_by, self._end_by)) - now)

    async def _judge(self) -> None:
        """Whether to wait on."""
        if self.view.is_finished:
            return
        if self._parts.reader.is_draining:
            self._parts.watchers.keep(self.view.id)  # the client asks again, and finds it
            raise Unavailable("The server is going down; ask again.")
        self._started = self._started or self.view.status is not Status.QUEUED
        now = asyncio.get_running_loop().time()
        if not self._started and now >= self._start_by:
            await self.release()
            raise QueueTimeout("The job did not start within the longest wait of its class; ask again later.")
        if now >= self._end_by:
            self._parts.watchers.keep(self.view.id)
            raise StillRunning("The job runs on: read it with GET /v1/jobs/{id}.", job_id=self.view.id)
