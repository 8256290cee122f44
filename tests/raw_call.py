"""A request put to the application itself: what it sends is read as it comes, and the client may go."""

import asyncio
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import brotli
import orjson
from fastapi import FastAPI

DECODERS: dict[str, Callable[[], Callable[[bytes], bytes]]] = {
    "br": lambda: brotli.Decompressor().process,
    "gzip": lambda: zlib.decompressobj(31).decompress,
}


class RawCall:
    """`messages` are the decoded pieces of the body, one for each that the application sent."""

    def __init__(self, app: FastAPI, path: str, headers: Mapping[str, str], *, json: Any = None) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.messages: list[str] = []
        self._grown = asyncio.Condition()
        self._gone = asyncio.Event()
        self._decode: Callable[[bytes], bytes] = bytes
        self._body = None if json is None else orjson.dumps(json)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET" if json is None else "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "server": ("penstock.test", 80),
            "client": ("127.0.0.1", 1),
        }
        self.call = asyncio.create_task(app(scope, self._receive, self._send))

    @property
    def text(self) -> str:
        return "".join(self.messages)

    async def until(self, wanted: str) -> None:
        async with asyncio.timeout(20), self._grown:
            await self._grown.wait_for(lambda: wanted in self.text)

    async def leave(self) -> None:
        """The client is gone; returns when the application has done what it does then."""
        self._gone.set()
        async with asyncio.timeout(20):
            await asyncio.wait([self.call])

    async def ended(self) -> None:
        async with asyncio.timeout(20):
            await self.call

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        async with self._grown:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
                encoding = self.headers.get("content-encoding")
                self._decode = DECODERS[encoding]() if encoding else bytes
            elif message.get("body"):
                self.messages.append(self._decode(message["body"]).decode())
            self._grown.notify_all()
