"""Counts and times every request, by the route that answered it and never by its address."""

import time
from functools import cache
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core import metrics

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Asked every few seconds by whoever balances the load.
_PROBES: Final = frozenset({"/health", "/ready"})


class RequestMeter:
    """The outermost middleware. A stream counts from its first byte on, and its size at its end."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        received = sent = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def timed(message: Message) -> None:
            nonlocal sent
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in _METHODS else "other"
                seconds = time.perf_counter() - started
                _seconds(route_of(scope), method, message["status"]).observe(seconds)
            sent += len(message.get("body", b""))
            await send(message)

        metrics.HTTP_IN_PROGRESS.inc()
        try:
            await self._app(scope, counted, timed)
        finally:
            metrics.HTTP_IN_PROGRESS.dec()
            request_bytes, response_bytes = _sizes(route_of(scope))
            request_bytes.observe(received)
            response_bytes.observe(sent)


def route_of(scope: Scope) -> str:
    """The route's pattern, such as /v1/jobs/{job_id}; what no route matched has one name for all."""
    path: str | None = getattr(scope.get("route"), "path", None)
    return path or "unmatched"


def count_refusal(code: str) -> None:
    metrics.REFUSALS.labels(code).inc()


# Routes, methods and statuses are few, and finding a child again costs as much as counting in it.
@cache
def _seconds(route: str, method: str, status: int) -> Any:
    return metrics.HTTP_SECONDS.labels(route, method, status)


@cache
def _sizes(route: str) -> tuple[Any, Any]:
    return metrics.HTTP_REQUEST_BYTES.labels(route), metrics.HTTP_RESPONSE_BYTES.labels(route)
