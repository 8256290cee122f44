"""The console: its page and files, and signing in and out."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response

from api import sessions
from api.dependencies import admin_caller, parts_of
from api.headers import matches
from api.job_answers import json_answer
from api.json_body import read_json
from core.errors import Forbidden, NotFound, Unauthenticated
from models.keys import ADMIN
from queues.requests.job_request import Body
from queues.requests.validation import validate

router = APIRouter(include_in_schema=False, default_response_class=Response)

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Asked again each time, and answered with 304: a page never runs with another version's scripts.
    "Cache-Control": "no-cache",
}


class SignIn(Body):
    key: str


@dataclass(frozen=True, slots=True)
class _File:
    body: bytes
    etag: str
    media_type: str


@cache
def _files() -> dict[str, _File]:
    """Everything in api/console, read once."""
    found = {}
    for entry in files("api").joinpath("console").iterdir():
        suffix = f".{entry.name.rpartition('.')[2]}"
        if suffix in _TYPES:
            body = entry.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
            found[entry.name] = _File(body, etag, _TYPES[suffix])
    return found


@router.get("/console")
async def console_page(request: Request) -> Response:
    return _send(request, "index.html")


@router.get("/console/session")
async def read_session(request: Request) -> Response:
    """Who is signed in, and what the page needs to know besides; 204 where nobody is: that is no mistake."""
    parts = parts_of(request)
    try:
        caller = await admin_caller(request)
    except Unauthenticated:
        return Response(status_code=204)
    return json_answer(
        {
            "key_id": caller.key_id,
            "tenant_id": caller.tenant_id,
            "scopes": sorted(caller.scopes),
            "max_class": caller.max_class,
            "models": parts.catalogue.names,
            "flower_url": parts.settings.console.flower_url or None,
            "version": request.app.version,
        },
        headers={"Cache-Control": "no-store"},
    )


@router.post("/console/session")
async def sign_in(request: Request) -> Response:
    """Takes the key once and answers with a cookie. Raises `Unauthenticated` and `Forbidden`."""
    parts = parts_of(request)
    public_url = parts.settings.api.public_url
    _require_own(request, public_url)
    key = validate(SignIn, await read_json(request)).key
    caller = await parts.keys.verify(f"Bearer {key}")
    caller.require(ADMIN)
    lasts = parts.settings.console.session
    token = await parts.keys.open_session(caller, parts.clock.now() + lasts)
    answer = Response(status_code=204)
    sessions.remember(answer, request, token, seconds=int(lasts.total_seconds()), public_url=public_url)
    return answer


@router.delete("/console/session")
async def sign_out(request: Request) -> Response:
    public_url = parts_of(request).settings.api.public_url
    _require_own(request, public_url)
    answer = Response(status_code=204)
    sessions.forget(answer, request, public_url)
    return answer


@router.get("/console/{name}")
async def console_file(request: Request, name: Annotated[str, Path(max_length=64)]) -> Response:
    return _send(request, name)


def _require_own(request: Request, public_url: str) -> None:
    if not sessions.is_own(request, public_url):
        raise Forbidden("Only the console's own page may sign in and out.")


def _send(request: Request, name: str) -> Response:
    file = _files().get(name)
    if file is None:
        raise NotFound("The console has no such file.")
    headers = {**_HEADERS, "ETag": file.etag}
    if matches(request, file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers, media_type=file.media_type)
