"""What a tenant shares with others in an engine's prefix cache: read and set by operators."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response

from api import openapi
from api.dependencies import AdminCaller, parts_of
from api.job_answers import json_answer
from api.json_body import read_json
from api.schemas.prefix_cache import PrefixCacheChange, render_prefix_cache
from core.errors import NotFound
from models.repositories import access
from queues.requests.validation import validate

router = APIRouter(tags=["operation"], default_response_class=Response)

Tenant = Annotated[str, Path(max_length=64, pattern=r"^[0-9A-Za-z_-]+$")]
_ANSWER = openapi.answer("What was set.", "PrefixCacheRead")


@router.get(
    "/v1/admin/tenants/{tenant_id}/prefix_cache",
    summary="Whether a tenant's prompts share their beginnings with others'",
    operation_id="read_tenant_prefix_cache",
    responses={200: _ANSWER, **openapi.problems(404, 422)},
)
async def read_prefix_cache(request: Request, _: AdminCaller, tenant_id: Tenant) -> Response:
    async with parts_of(request).database.read() as connection:
        private = await access.private_prefixes(connection, tenant_id)
    if private is None:
        raise NotFound("There is no such tenant.")
    return json_answer(render_prefix_cache(tenant_id, private=private))


@router.put(
    "/v1/admin/tenants/{tenant_id}/prefix_cache",
    summary="Keep a tenant's prompts apart from others' in the prefix cache, or let them share again",
    operation_id="set_tenant_prefix_cache",
    responses={200: _ANSWER, **openapi.problems(400, 404, 413, 422)},
    openapi_extra=openapi.body("PrefixCacheChange"),
)
async def set_prefix_cache(request: Request, _: AdminCaller, tenant_id: Tenant) -> Response:
    """Counts from the tenant's next start on; what runs goes on as it began."""
    wanted = validate(PrefixCacheChange, await read_json(request))
    async with parts_of(request).database.begin() as connection:
        known = await access.set_private_prefixes(connection, tenant_id, private=wanted.private)
    if not known:
        raise NotFound("There is no such tenant.")
    return json_answer(render_prefix_cache(tenant_id, private=wanted.private))
