"""Template answers as operators see, set and try them."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api import openapi
from api.dependencies import AdminCaller, parts_of
from api.job_answers import json_answer
from api.json_body import read_json
from api.schemas.templates import TemplateTry, render_listed, render_match
from core.errors import Conflict, NotFound
from models.repositories import templates
from queues.requests.validation import validate
from queues.templates import Intent

router = APIRouter(tags=["operation"], default_response_class=Response)

Name = Annotated[
    str,
    Path(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="The template's name."),
]


@router.get(
    "/v1/admin/templates",
    summary="Every template, in the order in which they are tried",
    operation_id="list_templates",
    responses={200: openapi.answer("The templates.", "TemplateList"), **openapi.problems()},
)
async def list_templates(request: Request, _: AdminCaller) -> Response:
    found = await parts_of(request).templates.listed()
    return json_answer({"object": "list", "data": [render_listed(one) for one in found]})


@router.put(
    "/v1/admin/templates/{name}",
    summary="Set a template; it goes before one of the file with its name",
    operation_id="set_template",
    status_code=204,
    responses={
        204: openapi.answer("Set; every process answers by it within seconds."),
        **openapi.problems(400, 404, 413, 422),
    },
    openapi_extra=openapi.body("Intent"),
)
async def set_template(request: Request, caller: AdminCaller, name: Name) -> Response:
    parts = parts_of(request)
    intent = validate(Intent, await read_json(request))
    async with parts.database.begin() as connection:
        await templates.put(
            parts.database, connection, name, intent.model_dump(mode="json"), actor=caller.key_id
        )
    parts.templates.forget()
    return Response(status_code=204)


@router.delete(
    "/v1/admin/templates/{name}",
    summary="Remove a template that was set; the file's own of that name is in force again",
    operation_id="remove_template",
    status_code=204,
    responses={204: openapi.answer("Removed."), **openapi.problems(404, 409, 422)},
)
async def remove_template(request: Request, _: AdminCaller, name: Name) -> Response:
    parts = parts_of(request)
    async with parts.database.begin() as connection:
        removed = await templates.remove(connection, name)
    parts.templates.forget()
    if not removed:
        if any(one.template.name == name for one in await parts.templates.listed()):
            raise Conflict(f"{name} is in the file of templates; remove it there.")
        raise NotFound("There is no such template.")
    return Response(status_code=204)


@router.post(
    "/v1/admin/templates/test",
    summary="Which template would answer a question, and with what",
    operation_id="try_templates",
    responses={
        200: openapi.answer("The match, or null.", "TemplateMatch"),
        **openapi.problems(400, 413, 422),
    },
    openapi_extra=openapi.body("TemplateTry"),
)
async def try_templates(request: Request, _: AdminCaller) -> Response:
    wanted = validate(TemplateTry, await read_json(request))
    found = await parts_of(request).templates.match(wanted.question)
    return json_answer(render_match(found, wanted.metadata))
