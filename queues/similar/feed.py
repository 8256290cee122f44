"""Feeds the index with answers of full quality, beside the work: what cannot be kept is let go."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from core.logs import get_logger
from core.settings import AnswerSettings
from models.degradation import level_of
from models.lifecycle import Status
from models.views import JobView
from queues.redis import REDIS_DOWN
from queues.similar.asked import asked
from queues.similar.embedder import Embedder, packed
from queues.similar.index import AnswerIndex, Entry, KeptAnswer

logger = get_logger(__name__)

_WAITING: Final = 1000


class AnswerFeed:
    """`offer` returns at once; a task writes what came, many in one round trip."""

    def __init__(
        self,
        index: AnswerIndex,
        settings: AnswerSettings,
        revisions: Mapping[str, str],
        embedder: Embedder | None = None,
    ) -> None:
        self._embedder = embedder
        self._index = index
        self._settings = settings
        self._revisions = revisions
        self._waiting: asyncio.Queue[tuple[JobView, dict[str, Any]]] = asyncio.Queue(_WAITING)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._settings.enabled:
            self._task = asyncio.create_task(self._serve())

    def offer(self, view: JobView, request: dict[str, Any]) -> None:
        if self._task is not None and is_whole(view):
            with suppress(asyncio.QueueFull):
                self._waiting.put_nowait((view, request))

    async def flush(self) -> None:
        """Returns when everything that was offered is kept, or lost."""
        await self._waiting.join()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _serve(self) -> None:
        while True:
            group = [await self._waiting.get()]
            while not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            try:
                found = [await self._entry(view, request) for view, request in group]
                await self._index.put([entry for entry in found if entry is not None])
            except REDIS_DOWN as error:
                logger.debug("answers_not_kept", answers=len(group), reason=type(error).__name__)
            except Exception:
                # A cache may lose an answer; it may not stop for it.
                logger.exception("answers_not_kept")
            finally:
                for _ in group:
                    self._waiting.task_done()

    async def _entry(self, view: JobView, request: dict[str, Any]) -> Entry | None:
        said = asked(request, model=view.model, revision=self._revisions.get(view.model, ""))
        digests = []
        if said.may_be_exact:
            digests.append(said.exact)
        vector = None
        if said.may_be_similar:
            digests.append(said.by_words)
            if self._embedder is not None:
                digests.append(said.by_meaning)
                vector = packed(await asyncio.to_thread(self._embedder.embed, said.question))
        if not digests:
            return None
        lifetime = self._settings.keep.total_seconds()
        if view.expires_at is not None:
            lifetime = min(lifetime, (view.expires_at - datetime.now(UTC)).total_seconds())
        tokens = (view.usage or {}).get("completion_tokens", 0)
        answer = KeptAnswer(view.id, view.tenant_id, view.output or {}, tokens, vector)
        return Entry(answer, tuple(digests), lifetime)


def is_whole(view: JobView) -> bool:
    """Only what was asked, whole: nothing cut, no answer of the cache, nothing with extras in it."""
    output = view.output or {}
    return (
        view.status is Status.COMPLETED
        and view.degradation is None
        and view.batch_id is None
        and output.get("finish_reason") == "stop"
        and level_of(view.degradation) == 0
        and bool(output.get("text"))
        and not output.keys() - {"text", "reasoning", "finish_reason"}
    )
