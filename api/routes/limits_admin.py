"""What a tenant or a key may use: read and set by operators."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api import openapi
from api.dependencies import AdminCaller, parts_of
from api.job_answers import json_answer
from api.json_body import read_json
from api.schemas.limits_change import LimitsChange
from api.schemas.usage_read import render_limits
from core.errors import NotFound
from models.limits import NO_LIMITS, Limits
from models.repositories import access
from queues.requests.validation import validate

router = APIRouter(tags=["operation"], default_response_class=Response)

Owner = Annotated[str, Path(max_length=64, pattern=r"^[0-9A-Za-z_-]+$")]
_ANSWER = openapi.answer("The limits as they were set; null is the default.", "LimitsRead")


@router.get(
    "/v1/admin/tenants/{tenant_id}/limits",
    summary="What was set for a tenant",
    operation_id="read_tenant_limits",
    responses={200: _ANSWER, **openapi.problems(404, 422)},
)
async def read_tenant_limits(request: Request, _: AdminCaller, tenant_id: Owner) -> Response:
    return await _read(request, tenant_id)


@router.put(
    "/v1/admin/tenants/{tenant_id}/limits",
    summary="Set a tenant's limits; what is left out is the default again",
    operation_id="set_tenant_limits",
    responses={200: _ANSWER, **openapi.problems(400, 404, 413, 422)},
    openapi_extra=openapi.body("LimitsChange"),
)
async def set_tenant_limits(request: Request, _: AdminCaller, tenant_id: Owner) -> Response:
    return await _set(request, tenant_id)


@router.get(
    "/v1/admin/keys/{key_id}/limits",
    summary="What was set for a key",
    operation_id="read_key_limits",
    responses={200: _ANSWER, **openapi.problems(404, 422)},
)
async def read_key_limits(request: Request, _: AdminCaller, key_id: Owner) -> Response:
    return await _read(request, key_id)


@router.put(
    "/v1/admin/keys/{key_id}/limits",
    summary="Set a key's limits; what is left out is the default again",
    operation_id="set_key_limits",
    responses={200: _ANSWER, **openapi.problems(400, 404, 413, 422)},
    openapi_extra=openapi.body("LimitsChange"),
)
async def set_key_limits(request: Request, _: AdminCaller, key_id: Owner) -> Response:
    return await _set(request, key_id)


async def _read(request: Request, owner: str) -> Response:
    async with parts_of(request).database.read() as connection:
        if not await access.owner_exists(connection, owner):
            raise NotFound("There is no such tenant or key.")
        found = await access.limits(connection, [owner])
    return json_answer(render_limits(owner, found.get(owner, NO_LIMITS)))


async def _set(request: Request, owner: str) -> Response:
    """Processes notice within PENSTOCK_API__KEY_CACHE."""
    wanted = validate(LimitsChange, await read_json(request))
    limits = Limits(**wanted.model_dump())
    async with parts_of(request).database.begin() as connection:
        if not await access.owner_exists(connection, owner):
            raise NotFound("There is no such tenant or key.")
        await access.set_limits(connection, owner, limits)
    return json_answer(render_limits(owner, limits))
