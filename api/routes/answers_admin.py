"""Kept answers as operators see them: a wrong one is removed."""

from fastapi import APIRouter, Request, Response

from api import openapi
from api.dependencies import AdminCaller, parts_of
from api.job_answers import json_answer
from api.routes.job_ids import JobId

router = APIRouter(tags=["operation"], default_response_class=Response)


@router.delete(
    "/v1/admin/answers/{job_id}",
    summary="Remove what a job's answer is kept under, so that it answers nobody else",
    operation_id="purge_answer",
    responses={200: openapi.answer("How many entries went.", "PurgeRead"), **openapi.problems(404, 422)},
)
async def purge_answer(request: Request, _: AdminCaller, job_id: JobId) -> Response:
    """Any tenant's; a job without a kept answer has none to remove."""
    removed = await parts_of(request).answers.forget(job_id)
    return json_answer({"object": "purge", "job_id": job_id, "removed": removed})
