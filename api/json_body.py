"""The JSON object in a request's body."""

from typing import Any

from starlette.requests import Request

from queues.requests.documents import parse_document


async def read_json(request: Request) -> dict[str, Any]:
    """Raises `BadInput` where the body is no JSON, else `InvalidField`."""
    return parse_document(await request.body())
