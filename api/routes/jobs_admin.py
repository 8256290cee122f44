"""Jobs of all tenants as operators see them: never what was asked or answered."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api import openapi
from api.dependencies import AdminCaller, parts_of
from api.job_answers import json_answer
from api.job_standing import read_standing
from api.routes.job_ids import JobId
from api.schemas.overview_read import render_glimpse
from core.errors import NotFound
from models.repositories import activity
from models.repositories.activity import Which

router = APIRouter(tags=["operation"], default_response_class=Response)


@router.get(
    "/v1/admin/jobs",
    summary="List jobs of all tenants: the newest, those that wait longest, that run, that ended badly",
    operation_id="list_all_jobs",
    responses={200: openapi.answer("The jobs.", "JobGlimpsePage"), **openapi.problems(422)},
)
async def list_all_jobs(
    request: Request,
    _: AdminCaller,
    which: Which = Which.RECENT,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    parts = parts_of(request)
    async with parts.database.read() as connection:
        found = await activity.jobs(connection, which, limit=limit)
    now = parts.clock.now()
    return json_answer({"object": "list", "data": [render_glimpse(job, now) for job in found]})


@router.get(
    "/v1/admin/jobs/{job_id}",
    summary="Where a job stands: its timeline and, while it is queued, why it waits",
    operation_id="read_job_standing",
    responses={200: openapi.answer("The job.", "JobStanding"), **openapi.problems(404, 422)},
)
async def read_job_standing(request: Request, _: AdminCaller, job_id: JobId) -> Response:
    return json_answer(await read_standing(parts_of(request), job_id))


@router.post(
    "/v1/admin/jobs/{job_id}/cancel",
    summary="Cancel a job of any tenant",
    operation_id="cancel_any_job",
    responses={200: openapi.answer("The job as it is now.", "JobStanding"), **openapi.problems(404, 422)},
)
async def cancel_any_job(request: Request, _: AdminCaller, job_id: JobId) -> Response:
    parts = parts_of(request)
    async with parts.database.read() as connection:
        tenant_id = await activity.owner(connection, job_id)
    if tenant_id is None:
        raise NotFound("There is no such job.")
    await parts.cancels.cancel(tenant_id, job_id)
    return json_answer(await read_standing(parts, job_id))
