"""How long to wait for an answer's next piece: one timer for the whole answer, not one for each piece."""

import asyncio
from types import TracebackType
from typing import Self


class Patience:
    """`async with Patience(first, later) as patience:` raises `TimeoutError` where it is used up.

    The first piece may take `first` seconds, each further one `later`.
    """

    def __init__(self, first: float, later: float) -> None:
        self.limit = first  # seconds that the piece may take which is awaited
        self._later = later
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._heard_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def heard(self, *, begun: bool) -> None:
        """Something came; `begun`: the first piece of the answer is among it."""
        self._heard_at = self._loop.time()
        if begun and self.limit != self._later:
            self.limit = self._later
            self._look_in(self._later)

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._look_in(self.limit)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        await self._scope.__aexit__(kind, error, trace)

    def _look(self) -> None:
        left = self._heard_at + self.limit - self._loop.time()
        if left > 0:
            self._look_in(left)
        else:
            self._scope.reschedule(self._loop.time())

    def _look_in(self, seconds: float) -> None:
        self._stop()
        self._timer = self._loop.call_later(seconds, self._look)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
