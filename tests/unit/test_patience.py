"""When an answer's silence is too long; no test waits for a clock that it did not move itself."""

import asyncio
from collections.abc import Callable

import pytest

from workers.patience import Patience

LONG = 3600.0


async def silence() -> None:
    await asyncio.Event().wait()


async def test_silence_from_the_start_is_cut() -> None:
    with pytest.raises(TimeoutError):
        async with Patience(0.0, LONG):
            await silence()


async def test_silence_after_the_first_piece_is_cut() -> None:
    async def piece_and_silence(patience: Patience) -> None:
        async with patience:
            patience.heard(begun=True)
            await silence()

    with pytest.raises(TimeoutError):
        await piece_and_silence(Patience(LONG, 0.0))


async def test_what_comes_before_the_first_piece_leaves_the_long_patience() -> None:
    async with Patience(LONG, 0.0) as patience:
        patience.heard(begun=False)
        await asyncio.sleep(0)

        assert patience.limit == LONG


async def test_each_piece_gives_the_whole_time_again(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    looks: list[tuple[float, Callable[[], None]]] = []
    clock = [100.0]
    async with Patience(10.0, 10.0) as patience:
        monkeypatch.setattr(patience, "_loop", Clock(clock, looks, loop))
        clock[0] = 109.0
        patience.heard(begun=True)
        clock[0] = 112.0
        patience._look()

        [(left, _)] = looks
        assert left == pytest.approx(7.0)


class Clock:
    """A loop whose time the test tells."""

    def __init__(
        self,
        now: list[float],
        looks: list[tuple[float, Callable[[], None]]],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._now, self._looks, self._loop = now, looks, loop

    def time(self) -> float:
        return self._now[0]

    def call_later(self, seconds: float, look: Callable[[], None]) -> asyncio.TimerHandle:
        self._looks.append((seconds, look))
        return self._loop.call_later(LONG, look)


async def test_an_answer_in_time_leaves_no_timer() -> None:
    async with Patience(LONG, LONG) as patience:
        await asyncio.sleep(0)

    assert patience._timer is not None
    assert patience._timer.cancelled()
