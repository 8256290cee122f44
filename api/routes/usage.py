"""`GET /v1/usage`: what a tenant's finished jobs used."""

from datetime import date, timedelta
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from api import openapi
from api.dependencies import JobsCaller, parts_of
from api.job_answers import json_answer
from api.schemas.usage_read import render_usage
from core.errors import InvalidField
from models.repositories import usage

router = APIRouter(tags=["usage"], default_response_class=Response)

_MONTH: Final = timedelta(days=30)
_LONGEST: Final = 366


@router.get(
    "/v1/usage",
    summary="What finished jobs used, by day, key, model or class",
    operation_id="read_usage",
    responses={200: openapi.answer("The sums.", "UsageRead"), **openapi.problems(422)},
)
async def read_usage(
    request: Request,
    caller: JobsCaller,
    since: Annotated[
        date | None, Query(alias="from", description="First day, UTC; 30 days ago when left out.")
    ] = None,
    until: Annotated[
        date | None, Query(alias="to", description="Last day, UTC; today when left out.")
    ] = None,
    group_by: Literal["day", "key", "model", "class"] = "day",
) -> Response:
    parts = parts_of(request)
    last = until or parts.clock.now().date()
    first = since or last - min(_MONTH, last - date.min)
    if first > last:
        raise InvalidField("from", "Is after `to`; give an earlier day.")
    if usage.days(first, last) > _LONGEST:
        raise InvalidField("from", f"Ask for at most {_LONGEST} days at once.")
    async with parts.database.read() as connection:
        rows = await usage.report(connection, caller.tenant_id, since=first, until=last, group_by=group_by)
    return json_answer(render_usage(rows, since=first, until=last, group_by=group_by))
