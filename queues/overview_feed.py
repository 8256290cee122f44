"""One look at the platform about once a second, shared by everybody who watches; none while nobody does."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import orjson

from core.errors import PenstockError
from core.logs import get_logger

logger = get_logger(__name__)

EVERY: Final = 1.0  # seconds
_DUTY: Final = 0.1  # part of the time that looking may take


@dataclass(frozen=True, slots=True)
class Frame:
    """JSON that every viewer is shown; `is_trouble`: the look failed, and `body` has the reason."""

    body: bytes
    is_trouble: bool = False

    def event(self) -> bytes:
        """As a server-sent event."""
        name = b"trouble" if self.is_trouble else b"overview"
        return b"event: " + name + b"\ndata: " + self.body + b"\n\n"


class OverviewFeed:
    """A viewer that is slow misses frames; it never makes the others wait, and nothing is kept for it."""

    def __init__(self, look: Callable[[], Awaitable[bytes]], *, every: float = EVERY) -> None:
        self._look = look
        self._every = every
        self._viewers = 0
        self._task: asyncio.Task[None] | None = None
        self._frame: Frame | None = None
        self._number = 0
        self._news = asyncio.Event()
        self._is_closed = False

    async def frames(self) -> AsyncIterator[Frame]:
        """Until the feed is closed. The first frame is a fresh one."""
        self._viewers += 1
        seen = self._number
        try:
            if self._task is None:
                self._task = asyncio.create_task(self._run(), name="overview-feed")
            while not self._is_closed:
                news = self._news
                if self._number > seen and self._frame is not None:
                    seen = self._number
                    yield self._frame
                else:
                    await news.wait()
        finally:
            self._viewers -= 1
            if self._viewers == 0:
                self._stop()

    async def close(self) -> None:
        self._is_closed = True
        self._stop()
        self._tell()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            self._frame = await self._take()
            self._number += 1
            self._tell()
            spent = time.monotonic() - began
            await asyncio.sleep(max(self._every - spent, spent / _DUTY))

    async def _take(self) -> Frame:
        try:
            return Frame(await self._look())
        except PenstockError as error:
            return _trouble(str(error))
        except Exception:
            logger.exception("overview_failed")
            return _trouble("Something broke here; it is logged.")


def _trouble(reason: str) -> Frame:
    return Frame(orjson.dumps({"reason": reason}), is_trouble=True)
