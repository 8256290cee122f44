"""One client for OpenAI-compatible HTTP servers, over TCP or a unix socket."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

import aiohttp
import orjson

from core.errors import EngineUnavailable, EngineUnreachable, GenerationStalled, PenstockError
from core.tracing import tracing
from workers.engines.answer_reader import AnswerReader, joined
from workers.engines.failures import failure_of
from workers.engines.protocol import Delta, Prompt
from workers.engines.request_body import Dialect, request_for

# RuntimeError: what aiohttp raises for a read just after its transport began to close.
_BROKEN = (aiohttp.ClientError, TimeoutError, OSError, RuntimeError)
# Tokens that come faster than this are read together. A tiny model on a CPU makes thousands a second, and to
# wake up for each costs the cores that it runs on; nobody reads so fast.
_GATHER: Final = 0.01  # seconds
_JSON = {"Content-Type": "application/json", "Accept": "text/event-stream"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server listens. `url` ends before /v1; with `socket`, its host is only a label."""

    url: str
    api_key: str | None = None
    socket: str | None = None


@dataclass(frozen=True, slots=True)
class Patience:
    """`silence` covers queueing, reading the prompt and the gap between two tokens."""

    connect: timedelta = timedelta(seconds=5)
    silence: timedelta = timedelta(minutes=10)


class _Flight:
    """One request under way, and how to end it from outside."""

    __slots__ = ("_opening", "_response", "aborted", "is_over", "read_at")

    def __init__(self) -> None:
        self.aborted = False
        self.is_over = False  # the server has ended it itself, or is gone
        self.read_at = float("-inf")
        self._opening: asyncio.Timeout | None = None
        self._response: aiohttp.ClientResponse | None = None

    async def open(self, request: Any) -> aiohttp.ClientResponse:
        async with asyncio.timeout(None) as self._opening:
            self._response = await request
        self._opening = None
        return self._response

    def abort(self) -> None:
        self.aborted = True
        if self._response is not None:
            self._response.close()
        elif self._opening is not None:
            self._opening.reschedule(0)

    def end(self) -> None:
        """Keeps the connection when the answer was read to its end, else closes it: that frees the slot."""
        if self._response is not None:
            self._response.release()


class OpenAIStream:
    """`progressed_at` is the monotonic time of the last byte of any answer.

    `is_doubted`: a stream broke, and no question has been answered since. Who trusts the last byte alone
    hands a job to a server that died a moment ago, and the job loses an attempt by it.
    `abandoned` hears of each request that was left before its end, after its connection began to close.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        dialect: Dialect,
        *,
        patience: Patience | None = None,
        abandoned: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.progressed_at = monotonic()
        self.is_doubted = False
        self._endpoint = endpoint
        self._dialect = dialect
        self._patience = patience or Patience()
        self._abandoned = abandoned
        self._session: aiohttp.ClientSession | None = None
        self._flights: dict[str, _Flight] = {}

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    def open(self) -> None:
        """To be called on the event loop that will stream."""
        if self._session is None:
            key = self._endpoint.api_key
            self._session = aiohttp.ClientSession(
                self._endpoint.url.rstrip("/") + "/",
                connector=self._connector(),
                headers={"Authorization": f"Bearer {key}"} if key else None,
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    sock_connect=self._patience.connect.total_seconds(),
                    sock_read=self._patience.silence.total_seconds(),
                ),
                read_bufsize=2**18,
            )

    async def close(self) -> None:
        """Streams under way raise `EngineUnavailable`."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def mark_progress(self) -> None:
        self.progressed_at = monotonic()

    async def get(self, path: str, *, within: timedelta = timedelta(seconds=5)) -> tuple[int, bytes]:
        """A short question beside the streams; raises `EngineUnavailable` when nobody answers."""
        limit = aiohttp.ClientTimeout(total=within.total_seconds())
        try:
            async with self._opened().get(path, timeout=limit) as response:
                status, body = response.status, await response.read()
        except _BROKEN as error:
            raise _unavailable(error) from error
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            self.is_doubted = False
        return status, body

    async def tell(self, path: str, document: Any, *, within: timedelta = timedelta(seconds=5)) -> int:
        """A word beside the streams; the status of its answer. Raises as `get` does."""
        limit = aiohttp.ClientTimeout(total=within.total_seconds())
        try:
            async with self._opened().post(path, json=document, timeout=limit) as response:
                await response.read()
                return response.status
        except _BROKEN as error:
            raise _unavailable(error) from error

    def abort(self, request_id: str) -> None:
        flight = self._flights.get(request_id)
        if flight is not None:
            flight.abort()

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        if not self._flights:
            self.mark_progress()
        flight = self._flights[prompt.request_id] = _Flight()
        reader = AnswerReader(prompt)
        try:
            response = await self._post(flight, prompt)
            ended = asyncio.Event()
            response.content.on_eof(ended.set)
            while not reader.done and (chunk := await response.content.readany()):
                before, self.progressed_at = flight.read_at, monotonic()
                flight.read_at = self.progressed_at
                for delta in joined(reader.feed(chunk)):
                    yield delta
                if flight.read_at - before < _GATHER and not reader.done:
                    await _ended_within(ended, _GATHER)
            last = reader.last()
            flight.is_over = True
        except (*_BROKEN, EngineUnavailable) as error:
            if not flight.aborted:
                self.is_doubted = flight.is_over = True
                raise _translated(error) from error
            last = Delta(finish_reason="abort")
        finally:
            flight.end()
            if self._flights.get(prompt.request_id) is flight:
                del self._flights[prompt.request_id]
            if not flight.is_over:
                self._abandoned(prompt.request_id)
        yield last

    async def _post(self, flight: _Flight, prompt: Prompt) -> aiohttp.ClientResponse:
        path, body = request_for(prompt, self._dialect)
        response = await flight.open(
            self._opened().post(f"v1/{path}", data=orjson.dumps(body), headers=_JSON | tracing().headers()),
        )
        if response.status != HTTPStatus.OK:
            flight.is_over = True
            raise failure_of(response.status, await response.read(), prompt=prompt)
        return response

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise EngineUnreachable("The engine is not started, or it is closed.")
        return self._session

    def _connector(self) -> aiohttp.BaseConnector:
        if self._endpoint.socket is not None:
            # llama.cpp gives a kept connection a thread of its own; a unix socket opens in microseconds.
            return aiohttp.UnixConnector(self._endpoint.socket, limit=0, force_close=True)
        # uvicorn (vLLM, SGLang) drops idle connections after 5 s: leave them before that.
        return aiohttp.TCPConnector(limit=0, keepalive_timeout=3)


async def _ended_within(ended: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await ended.wait()


def _translated(error: Exception) -> PenstockError:
    if isinstance(error, PenstockError):
        return error
    if isinstance(error, aiohttp.SocketTimeoutError):
        return GenerationStalled(f"The engine fell silent: {error}")
    return _unavailable(error)


def _unavailable(error: Exception) -> EngineUnavailable:
    never_arrived = isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
    kind = EngineUnreachable if never_arrived else EngineUnavailable
    return kind(f"The engine's connection failed: {error or type(error).__name__}")
