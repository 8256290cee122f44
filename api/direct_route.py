"""A route whose endpoint takes the request and its caller, and nothing that must be looked for."""

from collections.abc import Callable, Coroutine
from inspect import signature
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.dependencies import JobsCaller, jobs_caller

_TAKES: Final = {"request": Request, "caller": JobsCaller}


class DirectRoute(APIRoute):
    """FastAPI looks for dependencies at every request, and here it would find the caller alone.

    An endpoint that takes anything else is served as ever; the documentation is FastAPI's for all.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint
        taken = {name: one.annotation for name, one in signature(endpoint).parameters.items()}
        if taken != _TAKES:
            return super().get_route_handler()

        async def handle(request: Request) -> Response:
            answer: Response = await endpoint(request, await jobs_caller(request))
            return answer

        return handle
