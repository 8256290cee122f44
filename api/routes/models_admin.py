"""Models as operators see them: paused, drained, resumed."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api import openapi
from api.dependencies import AdminCaller, parts_of
from api.job_answers import json_answer
from api.schemas.admin_read import render_activity
from core.errors import NotFound
from models.repositories import holds
from models.repositories.holds import Hold

router = APIRouter(tags=["operation"], default_response_class=Response)

Name = Annotated[str, Path(max_length=128, description="The served name.")]
_ANSWERS = {200: openapi.answer("The model now.", "ModelActivityRead"), **openapi.problems(404, 422)}


@router.get(
    "/v1/admin/models",
    summary="List models: held or serving, what waits, what runs",
    operation_id="list_model_activity",
    responses={200: openapi.answer("Every served model.", "ModelActivityPage"), **openapi.problems()},
)
async def list_model_activity(request: Request, _: AdminCaller) -> Response:
    parts = parts_of(request)
    async with parts.database.read() as connection:
        found = await holds.activity(connection, parts.catalogue.names)
    return json_answer({"object": "list", "data": [render_activity(model) for model in found]})


@router.post(
    "/v1/admin/models/{name}/pause",
    summary="Begin nothing more of a model; submissions still wait in its queue",
    operation_id="pause_model",
    responses=_ANSWERS,
)
async def pause_model(request: Request, _: AdminCaller, name: Name) -> Response:
    return await _hold(request, name, Hold.PAUSED)


@router.post(
    "/v1/admin/models/{name}/drain",
    summary="The same, and say when nothing of it runs any more: state is `drained`",
    operation_id="drain_model",
    responses=_ANSWERS,
)
async def drain_model(request: Request, _: AdminCaller, name: Name) -> Response:
    return await _hold(request, name, Hold.DRAINING)


@router.post(
    "/v1/admin/models/{name}/resume",
    summary="Begin jobs of a model again",
    operation_id="resume_model",
    responses=_ANSWERS,
)
async def resume_model(request: Request, _: AdminCaller, name: Name) -> Response:
    answer = await _hold(request, name, None)
    parts_of(request).submission.ring()
    return answer


async def _hold(request: Request, name: str, hold: Hold | None) -> Response:
    """Workers obey at their next heartbeat, the relay at its next look."""
    parts = parts_of(request)
    if name not in parts.catalogue.names:
        raise NotFound("No such model is served.")
    async with parts.database.begin() as connection:
        if hold is None:
            await holds.lift(connection, name)
        else:
            await holds.put(parts.database, connection, name, hold)
        [model] = await holds.activity(connection, [name])
    return json_answer(render_activity(model))
