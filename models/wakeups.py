"""Bells between processes: LISTEN/NOTIFY of PostgreSQL, or a table of events in one process."""

import asyncio
import threading
from collections import defaultdict
from contextlib import suppress
from datetime import timedelta
from typing import Final

import asyncpg

from core.logs import get_logger

logger = get_logger(__name__)


class Wakeups:
    """A bell between processes: no payload, no promise; the listener also looks once in a while."""

    async def ring(self, bell: str) -> None:
        raise NotImplementedError

    async def wait(self, bell: str, within: timedelta) -> bool:
        """True when rung since the last wait; False when none rang `within` that time."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class _Bells:
    """Events of one process, rung from any thread, waited for on any loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: defaultdict[str, dict[asyncio.AbstractEventLoop, asyncio.Event]] = defaultdict(dict)

    def event(self, bell: str) -> asyncio.Event:
        loop = asyncio.get_running_loop()
        with self._lock:
            return self._events[bell].setdefault(loop, asyncio.Event())

    def ring(self, bell: str) -> None:
        with self._lock:
            listeners = list(self._events[bell].items())
        for loop, listener in listeners:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(listener.set)


async def _wait(listener: asyncio.Event, within: timedelta) -> bool:
    try:
        async with asyncio.timeout(within.total_seconds()):
            await listener.wait()
    except TimeoutError:
        return False
    listener.clear()
    return True


class LocalWakeups(Wakeups):
    """One process, so one table of bells per database file."""

    _tables: Final[dict[str, _Bells]] = {}

    def __init__(self, key: str) -> None:
        self._bells = self._tables.setdefault(key, _Bells())

    async def ring(self, bell: str) -> None:
        self._bells.ring(bell)

    async def wait(self, bell: str, within: timedelta) -> bool:
        return await _wait(self._bells.event(bell), within)

    async def close(self) -> None:
        return


class PostgresWakeups(Wakeups):
    """LISTEN/NOTIFY on a connection of its own.

    NOTIFY is sent outside the transaction that it announces: inside, it serialises the commits of all
    notifying transactions (PostgreSQL takes one global lock for them).
    """

    def __init__(self, dsn: str, namespace: str, connect_timeout: timedelta) -> None:
        self._dsn = dsn
        self._prefix = namespace.replace(".", "_").replace("-", "_")
        self._timeout = connect_timeout.total_seconds()
        self._bells = _Bells()
        self._connection: asyncpg.Connection | None = None
        self._listening: set[str] = set()
        self._lock = asyncio.Lock()  # asyncpg refuses a second command while one is under way
        self._about_to_ring: set[str] = set()

    async def ring(self, bell: str) -> None:
        if bell in self._about_to_ring:
            return  # It is sent later than this, and wakes the same.
        self._about_to_ring.add(bell)
        try:
            async with self._lock:
                self._about_to_ring.discard(bell)
                connection = await self._connect()
                await connection.execute(f'NOTIFY "{self._channel(bell)}"', timeout=self._timeout)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            # The listener's own timer covers a lost ring.
            self._drop()
            logger.debug("wakeup_lost", bell=bell)
        finally:  # Also where it was cancelled before its turn; at worst one rings more than had to.
            self._about_to_ring.discard(bell)

    async def wait(self, bell: str, within: timedelta) -> bool:
        listener = self._bells.event(bell)
        try:
            await self._listen(bell)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            self._drop()
            logger.debug("wakeup_unavailable", bell=bell)
        if await _wait(listener, within):
            return True
        await self._probe()
        return False

    async def _probe(self) -> None:
        """A link may die without a word, and a listener only listens."""
        async with self._lock:
            if self._connection is not None and not self._connection.is_closed():
                try:
                    await self._connection.execute("SELECT 1", timeout=self._timeout)
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                    self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _connect(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            self._listening.clear()
            self._connection = await asyncpg.connect(
                self._dsn, timeout=self._timeout, command_timeout=self._timeout
            )
        return self._connection

    async def _listen(self, bell: str) -> None:
        async with self._lock:
            connection = await self._connect()
            if bell not in self._listening:
                await connection.add_listener(self._channel(bell), lambda *_: self._bells.ring(bell))
                self._listening.add(bell)

    def _channel(self, bell: str) -> str:
        return f"{self._prefix}_{bell}"

    async def close(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            try:
                await self._connection.close(timeout=1)
            except TimeoutError:  # asyncpg has aborted it by then
                logger.debug("wakeups_closed_late")
