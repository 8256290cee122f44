"""The degradation policy as operators see it: levels, readings, the last changes, and pins."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api import openapi
from api.dependencies import AdminCaller, parts_of
from api.job_answers import json_answer
from api.json_body import read_json
from api.schemas.degradation import PinCreate, render_change, render_model
from core.errors import NotFound
from models.degradation import Level
from models.repositories import degradation
from models.repositories.degradation import Change
from queues.requests.validation import validate

router = APIRouter(tags=["operation"], default_response_class=Response)

Name = Annotated[str, Path(max_length=128, description="The served name.")]
_CHANGES = 50


@router.get(
    "/v1/admin/degradation",
    summary="Every model's level: by which rule, on what reading, since when",
    operation_id="show_degradation",
    responses={200: openapi.answer("Now, and the last changes.", "DegradationStatus"), **openapi.problems()},
)
async def show_degradation(request: Request, _: AdminCaller) -> Response:
    parts = parts_of(request)
    async with parts.database.read() as connection:
        changes = await degradation.history(connection, limit=_CHANGES)
    models = [render_model(name, parts.board.verdict(name)) for name in parts.catalogue.names]
    return json_answer(
        {"object": "degradation", "models": models, "changes": [render_change(one) for one in changes]}
    )


@router.put(
    "/v1/admin/degradation/{name:path}",
    summary="Pin a model's level for a time",
    operation_id="pin_degradation",
    status_code=204,
    responses={
        204: openapi.answer("Pinned; every process obeys within a second."),
        **openapi.problems(400, 404, 413, 422),
    },
    openapi_extra=openapi.body("PinCreate"),
)
async def pin_degradation(request: Request, caller: AdminCaller, name: Name) -> Response:
    parts = parts_of(request)
    wanted = validate(PinCreate, await read_json(request))
    _check(request, name)
    async with parts.database.begin() as connection:
        await degradation.pin(
            parts.database, connection, name, wanted.level, lasts=wanted.expires_in, actor=caller.key_id
        )
        reason = f"pinned for {wanted.expires_in}"
        await degradation.record(
            connection,
            [_change(request, name, rule="pin", reason=reason, actor=caller.key_id, level=wanted.level)],
        )
    return Response(status_code=204)


@router.delete(
    "/v1/admin/degradation/{name:path}",
    summary="Take a pin back: the policy decides again",
    operation_id="unpin_degradation",
    status_code=204,
    responses={204: openapi.answer("Not pinned any more."), **openapi.problems(404, 422)},
)
async def unpin_degradation(request: Request, caller: AdminCaller, name: Name) -> Response:
    parts = parts_of(request)
    _check(request, name)
    async with parts.database.begin() as connection:
        await degradation.unpin(connection, name)
        change = _change(
            request, name, rule="unpin", reason="pin taken back", actor=caller.key_id, level=None
        )
        await degradation.record(connection, [change])
    return Response(status_code=204)


def _check(request: Request, name: str) -> None:
    if name not in parts_of(request).catalogue.names:
        raise NotFound("No such model is served.")


def _change(request: Request, name: str, *, rule: str, reason: str, actor: str, level: int | None) -> Change:
    verdict = parts_of(request).board.verdict(name)
    before = verdict.state.level if verdict is not None else Level.FULL
    return Change(name, before, before if level is None else level, rule, reason, actor)
