"""Around a request: the bytes of its body and its id."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from api.middleware import BodyLimit, RequestContext
from core.errors import BodyTooLarge


async def reads_everything(scope: Scope, receive: Receive, send: Send) -> None:
    status = 200
    try:
        while (await receive()).get("more_body"):
            pass
    except BodyTooLarge:
        status = 413
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def fails(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("password=hunter2")


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


@pytest.fixture
async def limited() -> AsyncIterator[httpx.AsyncClient]:
    async with client(BodyLimit(reads_everything, default=10, limits={"/bulk": 100})) as opened:
        yield opened


@pytest.mark.parametrize(
    ("path", "size", "status"), [("/", 10, 200), ("/", 11, 413), ("/bulk", 100, 200), ("/bulk", 101, 413)]
)
async def test_bytes_are_counted(limited: httpx.AsyncClient, path: str, size: int, status: int) -> None:
    assert (await limited.post(path, content=b"x" * size)).status_code == status


async def test_bytes_of_a_body_without_a_length_are_counted(limited: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x"

    assert (await limited.post("/", content=chunks())).status_code == 413


async def test_a_body_that_is_far_too_large_is_not_read_to_its_end() -> None:
    def endless() -> Iterator[dict[str, Any]]:
        while True:
            yield {"type": "http.request", "body": b"x" * 1_000_000, "more_body": True}

    messages, sent, read = endless(), [], 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    await BodyLimit(reads_everything, default=10, limits={})(scope, receive, send)

    assert sent[0]["status"] == 413
    assert read < 20


async def test_an_id_is_kept_or_made() -> None:
    async with client(RequestContext(reads_everything)) as opened:
        kept = await opened.post("/", headers={"X-Request-Id": "mine-1"})
        made = await opened.post("/", headers={"X-Request-Id": "no good\t"})

    assert kept.headers["x-request-id"] == "mine-1"
    assert made.headers["x-request-id"].startswith("req_")


async def test_an_unforeseen_error_says_nothing() -> None:
    async with client(RequestContext(fails)) as opened:
        answer = await opened.get("/")

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in answer.text
    assert answer.json()["instance"] == answer.headers["x-request-id"]
