"""Submissions over loopback at little cost: what the client computes, the service that is measured lacks.

aiohttp takes about as much of a core for a request as the services themselves. The same client serves all, so
that ratios of CPU are unharmed, and those of rates come nearer to them.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, cast
from urllib.parse import urlsplit

import orjson

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_PATIENCE: Final = 120.0  # seconds


class _Connection(asyncio.Protocol):
    """One request at a time, each answered with a Content-Length."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> "asyncio.Future[tuple[int, bytes]]":
        assert self._transport is not None, "connected first"  # noqa: S101
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if not found or self._answer is None:
            return
        if length is None:
            self._fail(ConnectionError(f"no length: {head!r}"))
        elif len(rest) >= int(length[1]):
            self._buffer = b""
            self._answer.set_result((int(head[9:12]), rest))

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(exc or ConnectionError("the service closed the connection"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _fail(self, error: Exception) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


class Posts:
    """As many connections as requests are under way."""

    def __init__(self, url: str, key: str | None) -> None:
        self._host, self._port = urlsplit(url).hostname or "", urlsplit(url).port or 80
        authorization = f"Authorization: Bearer {key}\r\n" if key else ""
        self._head = (
            f"POST /v1/jobs HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n{authorization}"
            "Content-Type: application/json\r\nContent-Length: "
        ).encode()
        self._idle: list[_Connection] = []

    async def post(self, body: dict[str, Any]) -> tuple[int, bytes]:
        connection = self._idle.pop() if self._idle else await self._connect()
        document = orjson.dumps(body)
        request = b"".join((self._head, str(len(document)).encode(), b"\r\n\r\n", document))
        answer = await connection.ask(request)
        self._idle.append(connection)
        return answer

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(_Connection, self._host, self._port)
        return connection

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


@asynccontextmanager
async def posts(url: str, key: str | None) -> AsyncIterator[Posts]:
    made = Posts(url, key)
    try:
        async with asyncio.timeout(_PATIENCE):
            yield made
    finally:
        made.close()


def submit(*, max_tokens: int, **fields: Any) -> Callable[[Posts, int], Awaitable[str]]:
    """What `load.submit` sends; returns the job's id. Any answer but 202 ends the benchmark."""

    async def call(client: Posts, number: int) -> str:
        message = {"role": "user", "content": f"where is my order A{1000 + number}"}
        status, answer = await client.post({"messages": [message], "max_tokens": max_tokens, **fields})
        if status != 202:
            raise RuntimeError(f"{status}: {answer!r}")
        return str(orjson.loads(answer)["id"])

    return call
