"""TCP links that can fail: cut, black-holed, slow, half-open, or cut at the very message that matters."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_CHUNK: Final = 2**16
_OVERLAP: Final = 160  # bytes kept, so that what two chunks share is seen


class Fault(StrEnum):
    """What a link can do to those who use it."""

    CUT = "cut"
    BLACK_HOLE = "black hole"
    SLOW = "slow"
    HALF_OPEN = "half-open"


class Way(StrEnum):
    """Towards the server, or back."""

    ASK = "ask"
    ANSWER = "answer"


@dataclass(slots=True)
class Trap:
    """Calls `spring` instead of passing on the first data with `pattern`, and cuts that connection."""

    pattern: bytes
    way: Way
    spring: Callable[[], None]


@dataclass(eq=False, slots=True)
class _Pair:
    """One connection through the link. A silent one stays open to its client and is dead behind."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    silent: bool = False

    def abort(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class Link:
    """Listens on `port` of loopback and passes everything to one of `upstream`, in turn.

    `hits` counts what the groups of `count` match in the answers.
    """

    def __init__(self, name: str, upstream: list[int], *, count: re.Pattern[bytes] | None = None) -> None:
        self.name = name
        self.upstream = upstream
        self.port = 0
        self.fault: Fault | None = None
        self.trap: Trap | None = None
        self.hits: Counter[tuple[bytes, ...]] = Counter()
        self._count = count
        self._flows = asyncio.Event()
        self._flows.set()
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = 0
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self.heal()
        if self._server is not None:
            self._server.close()
        for pair in list(self._pairs):
            pair.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def fail(self, fault: Fault) -> None:
        self.heal()
        self.fault = fault
        if fault is Fault.BLACK_HOLE:
            self._flows.clear()
        elif fault is Fault.CUT:
            for pair in list(self._pairs):
                pair.abort()
        elif fault is Fault.HALF_OPEN:
            for pair in list(self._pairs):
                pair.silent = True
                pair.server.transport.abort()

    def heal(self) -> None:
        """New connections work, and black-holed ones go on; half-open ones stay dead."""
        self.fault = None
        self._flows.set()

    def set_trap(self, pattern: bytes, way: Way, spring: Callable[[], None]) -> None:
        self.trap = Trap(pattern, way, spring)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self.fault is Fault.CUT:
            writer.transport.abort()
            return
        await self._flows.wait()
        found = await self._dial()
        if found is None:
            writer.transport.abort()
            return
        server_reader, server_writer = found
        pair = _Pair(writer, server_writer)
        self._pairs.add(pair)
        try:
            await asyncio.gather(
                self._pump(pair, reader, server_writer, Way.ASK),
                self._pump(pair, server_reader, writer, Way.ANSWER),
            )
            while pair.silent and not writer.is_closing():  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.5)
        except asyncio.CancelledError:
            pass  # by `close`: the callback of streams would report it as an error
        finally:
            self._pairs.discard(pair)
            pair.abort()

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self.upstream:
            self._turn += 1
            port = self.upstream[self._turn % len(self.upstream)]
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None

    async def _pump(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Way
    ) -> None:
        tail = b""
        with suppress(OSError, RuntimeError):  # uvloop's word for a closed transport
            while data := await reader.read(_CHUNK):
                await self._flows.wait()
                if pair.silent:
                    continue  # into nothing
                if self.fault is Fault.SLOW:
                    await asyncio.sleep(0.15)
                if self._is_trapped(data, way):
                    pair.abort()
                    return
                if self._count is not None and way is Way.ANSWER:
                    tail = self._counted(self._count, tail + data)
                writer.write(data)
                await writer.drain()
        if not pair.silent:
            await self._flows.wait()
            writer.close()

    def _counted(self, pattern: re.Pattern[bytes], data: bytes) -> bytes:
        """What the next data may complete to one more match."""
        end = 0
        for match in pattern.finditer(data):
            self.hits[match.groups()] += 1
            end = match.end()
        return data[max(end, len(data) - _OVERLAP) :]

    def _is_trapped(self, data: bytes, way: Way) -> bool:
        trap = self.trap
        if trap is None or trap.way is not way or trap.pattern not in data:
            return False
        self.trap = None
        trap.spring()
        return True
