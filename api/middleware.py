"""Around every request: its id, its log context, the bytes of its body, and the last resort."""

import re
from collections.abc import Mapping
from typing import Final

import orjson
import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import standings
from api.errors import describe
from api.meter import count_refusal, route_of
from core.errors import BodyTooLarge
from core.ids import new_id
from core.logs import get_logger
from core.tracing import tracing

logger = get_logger(__name__)

_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_DRAIN: Final = 8 * 1024 * 1024


class RequestContext:
    """Names the request in its answer and its logs; an error that nobody foresaw becomes a bare 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _given_id(scope) or new_id("req")
        scope["penstock_request_id"] = request_id
        noted = standings.begin(_claimed_complexity(scope))
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.update(standings.headers(noted))
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                with tracing().span("http", "server", parent=_given(scope, b"traceparent")) as span:
                    await self._app(scope, receive, send_with_id)
                    span.name(f"{scope['method']} {route_of(scope)}")
                    span.note(request_id=request_id)
            except Exception as error:
                logger.exception("request_failed", path=scope["path"], method=scope["method"])
                if started:
                    raise
                await _send_bare_problem(send_with_id, error, request_id)


def _claimed_complexity(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-complexity":
            claimed: str = value[:32].decode("latin-1")
            return claimed
    return None


def _given(scope: Scope, wanted: bytes) -> str | None:
    return next((value.decode("latin-1") for name, value in scope["headers"] if name == wanted), None)


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            given: str = value.decode()
            return given
    return None


async def _send_bare_problem(send: Send, error: Exception, request_id: str) -> None:
    problem = describe(error)
    count_refusal(problem.code)
    headers = [(b"content-type", b"application/problem+json")]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": orjson.dumps(problem.body(instance=request_id))})


class BodyLimit:
    """Counts the bytes of a body as they come, whatever its header says, before anything parses them.

    `limits` are per path; others have the default. The reader of the body sees `BodyTooLarge`.
    """

    def __init__(self, app: ASGIApp, *, default: int, limits: Mapping[str, int]) -> None:
        self._app = app
        self._default = default
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "DELETE"}:
            await self._app(scope, receive, send)
            return
        limit = self._limits.get(scope["path"], self._default)
        announced = _content_length(scope)
        received = 0

        async def counted() -> Message:
            nonlocal received
            if announced > limit:
                await _drain(receive)
                raise _too_large(limit)
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                await _drain(receive)
                raise _too_large(limit)
            return message

        await self._app(scope, counted, send)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {limit} bytes: send less, or raise the server's limit.")


def _content_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


async def _drain(receive: Receive) -> None:
    """Reads on for a while: a client that still sends does not see the answer of a closed connection."""
    drained = 0
    while drained < _DRAIN:
        message = await receive()
        drained += len(message.get("body", b""))
        if message["type"] != "http.request" or not message.get("more_body"):
            return
