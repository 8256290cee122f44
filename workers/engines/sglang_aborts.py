"""Tells an SGLang server which requests nobody waits for any more."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from core.errors import EngineUnavailable

_LANES: Final = 4  # connections that are used again: a hundred new ones cost more than what they say


class Aborts:
    """A closed connection says the same, but only when SGLang looks, and some versions first wait for 2 s.

    `say(request_id)` speaks to the server. What it does not hear is left to the closed connection.
    """

    def __init__(self, say: Callable[[str], Awaitable[object]]) -> None:
        self._say = say
        self._waiting: deque[str] = deque()
        self._lanes: set[asyncio.Task[None]] = set()

    def note(self, request_id: str) -> None:
        self._waiting.append(request_id)
        if len(self._lanes) < _LANES:
            lane = asyncio.create_task(self._work(), name="abort-sglang")
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)

    async def close(self) -> None:
        self._waiting.clear()
        await asyncio.gather(*self._lanes, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            try:
                await self._say(self._waiting.popleft())
            except EngineUnavailable:
                self._waiting.clear()
