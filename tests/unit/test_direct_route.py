"""Which endpoints are called without FastAPI's search for dependencies."""

from fastapi import APIRouter, Request, Response

from api.dependencies import JobsCaller
from api.direct_route import DirectRoute


async def direct(request: Request, caller: JobsCaller) -> Response:
    return Response()


async def with_a_path(request: Request, caller: JobsCaller, job_id: str) -> Response:
    return Response()


async def without_a_caller(request: Request) -> Response:
    return Response()


def test_the_caller_alone_is_found_directly_and_anything_else_by_fastapi() -> None:
    router = APIRouter(route_class=DirectRoute)
    for path, endpoint in (("/a", direct), ("/b/{job_id}", with_a_path), ("/c", without_a_caller)):
        router.add_api_route(path, endpoint, response_model=None)

    handlers = {
        route.path: route.get_route_handler() for route in router.routes if isinstance(route, DirectRoute)
    }

    assert {path: handler.__module__ for path, handler in handlers.items()} == {
        "/a": "api.direct_route",
        "/b/{job_id}": "fastapi.routing",
        "/c": "fastapi.routing",
    }
