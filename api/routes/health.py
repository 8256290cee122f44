"""Is the process alive, and would a prompt be served?"""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Final

from fastapi import APIRouter, Request, Response

from api import openapi
from api.dependencies import Parts, parts_of
from api.job_answers import json_answer
from core.errors import StoreUnavailable
from models.repositories import fleet, schema

router = APIRouter(tags=["operation"], default_response_class=Response)

_READY: Final = "ready"
_MISSED_HEARTBEATS: Final = 3
_LEAST: Final = timedelta(seconds=10)


@router.get(
    "/health",
    summary="Is this process alive?",
    operation_id="read_health",
    responses={200: openapi.answer("It is.", "HealthRead")},
    openapi_extra=openapi.NO_KEY,
)
async def read_health() -> Response:
    return json_answer({"status": "ok"})


@router.get(
    "/ready",
    summary="Would a prompt be served?",
    operation_id="read_readiness",
    responses={
        200: openapi.answer("It would.", "ReadyRead"),
        503: openapi.answer("It would not: `missing` says why.", "ReadyRead", "Retry-After"),
    },
    openapi_extra=openapi.NO_KEY,
)
async def read_readiness(request: Request) -> Response:
    missing = [reason async for reason in _missing(parts_of(request), request.app.state.known_revisions)]
    if missing:
        return json_answer({"status": "not_ready", "missing": missing}, 503, {"Retry-After": "2"})
    return json_answer({"status": "ready", "missing": []})


async def _missing(parts: Parts, known: Sequence[str]) -> AsyncIterator[str]:
    if parts.reader.is_draining:
        yield "The server drains."
    within = max(_MISSED_HEARTBEATS * parts.settings.worker.heartbeat, _LEAST)
    try:
        async with parts.database.read() as connection:
            if schema.is_behind(await schema.applied_revision(connection), known):
                yield "The database is not migrated: run `penstock migrate`."
                return
            workers = await fleet.alive(connection, within=within)
    except StoreUnavailable:
        yield "The database cannot be reached."
        return
    if not any(worker.state == _READY for worker in workers):
        yield "No worker is ready."
