"""The one batcher: whenever its lane is free, everything that waits goes in one group. No timer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class GroupCommit(Generic[Item, Outcome]):
    """Turns many concurrent `submit(item)` into few `flush(items)`.

    `flush` returns one outcome per item, in their order. While one group is being flushed the next
    gathers, so a group is as large as the load makes it, and a lone item waits for nobody. An error
    fails its whole group, unless the group has several members and `retry_alone` accepts the error:
    then each is flushed by itself, so that one bad row cannot fail its neighbours.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome]]],
        *,
        limit: int = 500,
        lanes: int = 1,
        retry_alone: Callable[[Exception], bool] = lambda _: False,
    ) -> None:
        self._flush = flush
        self._limit = limit
        self._free_lanes = lanes
        self._retry_alone = retry_alone
        self._waiting: list[tuple[Item, asyncio.Future[Outcome]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item) -> Outcome:
        return await self.enqueue(item)

    def enqueue(self, item: Item) -> "asyncio.Future[Outcome]":
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._free_lanes:
            self._free_lanes -= 1
            task = asyncio.create_task(self._work())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return future

    async def drain(self) -> None:
        """Returns when everything that was submitted has its outcome."""
        while self._running:
            await asyncio.wait(self._running)

    async def _work(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
                await self._settle(group)
        finally:
            self._free_lanes += 1

    async def _settle(self, group: Sequence[tuple[Item, asyncio.Future[Outcome]]]) -> None:
        try:
            outcomes = await self._flush([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - handed to those who wait
            if len(group) > 1 and self._retry_alone(error):
                for member in group:
                    await self._settle([member])
                return
            _fail(group, error)
        except BaseException:
            _fail(group, asyncio.CancelledError())
            raise
        else:
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)


def _fail(group: Sequence[tuple[Item, asyncio.Future[Outcome]]], error: BaseException) -> None:
    for _, future in group:
        if not future.done():
            if isinstance(error, asyncio.CancelledError):
                future.cancel()
            else:
                future.set_exception(error)
