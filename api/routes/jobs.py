"""One job after its submission, and the list of all."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api import openapi
from api.dependencies import JobsCaller, parts_of
from api.headers import MAX_WAIT, matches
from api.intake import check_deadline
from api.job_answers import answer_job, etag, job_headers, json_answer, outcome, render_all
from api.json_body import read_json
from api.routes.job_ids import JobId
from api.schemas.admin_read import render_timeline
from api.schemas.job_create import BulkCancel, FeedbackCreate, JobChange
from core import metrics
from core.errors import Conflict, InvalidField, NotFinished, NotFound
from models.lifecycle import Status
from models.repositories import changes, jobs
from models.repositories.jobs import Change, Filter
from models.service_class import ServiceClass
from queues.requests.validation import validate

router = APIRouter(tags=["jobs"], default_response_class=Response)

Word = Annotated[str | None, Query(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]
Wait = Annotated[int, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for the job's end.")]


@router.get(
    "/v1/jobs",
    summary="List jobs, newest first",
    operation_id="list_jobs",
    responses={200: openapi.answer("A page.", "JobPage"), **openapi.problems(422)},
)
async def list_jobs(  # noqa: PLR0913, PLR0917 - the filters of the contract
    request: Request,
    caller: JobsCaller,
    status: Status | None = None,
    model: Word = None,
    service_class: ServiceClass | None = None,
    batch_id: Word = None,
    tag: Word = None,
    after: Word = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    wanted = Filter(
        status=status.value if status else None,
        model=model,
        service_class=service_class.value if service_class else None,
        batch_id=batch_id,
        tag=tag,
        after=after,
    )
    async with parts_of(request).database.read() as connection:
        views, has_more = await jobs.page(connection, caller.tenant_id, wanted, limit=limit)
    return json_answer(
        {
            "object": "list",
            "data": await render_all(request, views),
            "first_id": views[0].id if views else None,
            "last_id": views[-1].id if views else None,
            "has_more": has_more,
        }
    )


@router.get(
    "/v1/jobs/{job_id}",
    summary="Poll a job",
    operation_id="read_job",
    responses={
        200: openapi.job_answer("The job."),
        304: openapi.answer("The job's version is the one named.", None, *openapi.JOB_HEADERS),
        **openapi.problems(404, 422),
    },
    openapi_extra={"parameters": [openapi.IF_NONE_MATCH]},
)
async def read_job(request: Request, caller: JobsCaller, job_id: JobId, wait: Wait = 0) -> Response:
    reader = parts_of(request).reader
    view = await reader.read(caller.tenant_id, job_id)
    if wait:
        view = await reader.until_finished(view, wait)
    if matches(request, etag(view)):
        return Response(status_code=304, headers=job_headers(view))
    return await answer_job(request, view)


@router.get(
    "/v1/jobs/{job_id}/timeline",
    summary="Every change of a job: when, in which attempt, on which worker, and why",
    operation_id="read_timeline",
    responses={200: openapi.answer("Oldest first.", "TimelineRead"), **openapi.problems(404, 422)},
)
async def read_timeline(request: Request, caller: JobsCaller, job_id: JobId) -> Response:
    async with parts_of(request).database.read() as connection:
        found = await changes.timeline(connection, caller.tenant_id, job_id)
    if found is None:
        raise NotFound("There is no such job.")
    return json_answer({"object": "list", "data": render_timeline(found)})


@router.post(
    "/v1/jobs/bulk/cancel",
    summary="Cancel up to 1,000 jobs, each with its own outcome",
    operation_id="cancel_jobs_in_bulk",
    responses={
        200: openapi.answer("The outcomes, in the order given.", "BulkRead"),
        **openapi.problems(400, 413, 422),
    },
    openapi_extra=openapi.body("BulkCancel"),
)
async def cancel_in_bulk(request: Request, caller: JobsCaller) -> Response:
    ids = validate(BulkCancel, await read_json(request)).ids
    views = await parts_of(request).cancels.cancel_all(caller.tenant_id, ids)
    data = [
        outcome(request, index, views.get(job_id) or NotFound(f"There is no job {job_id}."))
        for index, job_id in enumerate(ids)
    ]
    return json_answer({"object": "list", "data": data})


@router.post(
    "/v1/jobs/{job_id}/cancel",
    summary="Cancel a job; a running one leaves the GPU",
    operation_id="cancel_job",
    responses={200: openapi.job_answer("The job as it is now."), **openapi.problems(404, 422)},
)
async def cancel_job(request: Request, caller: JobsCaller, job_id: JobId) -> Response:
    view = await parts_of(request).cancels.cancel(caller.tenant_id, job_id)
    if view is None:
        raise NotFound("There is no such job.")
    return await answer_job(request, view)


@router.patch(
    "/v1/jobs/{job_id}",
    summary="Change a job that is still queued",
    operation_id="change_job",
    responses={
        200: openapi.job_answer("The changed job."),
        **openapi.problems(400, 404, 409, 413, 422),
    },
    openapi_extra=openapi.body("JobChange"),
)
async def change_job(request: Request, caller: JobsCaller, job_id: JobId) -> Response:
    parts = parts_of(request)
    wanted = validate(JobChange, await read_json(request))
    given = wanted.model_fields_set
    if not given:
        raise InvalidField("body", "Give at least one of priority, deadline and metadata.")
    check_deadline(wanted.deadline, parts.clock.now())
    change = Change(
        priority=wanted.priority if "priority" in given else None,
        deadline=wanted.deadline,
        sets_deadline="deadline" in given,
        metadata=dict(wanted.metadata) if "metadata" in given else None,
    )
    async with parts.database.begin() as connection:
        changed = await jobs.change(parts.database, connection, caller.tenant_id, job_id, change)
    view = await parts.reader.read_truth(caller.tenant_id, job_id)
    if not changed:
        raise Conflict(f"Only a queued job can be changed; this one is {view.status.value}.")
    parts.submission.ring()
    return await answer_job(request, view)


@router.delete(
    "/v1/jobs/{job_id}",
    summary="Erase prompt and result of a finished job; a tombstone stays",
    operation_id="erase_job",
    status_code=204,
    responses={204: openapi.answer("Erased."), **openapi.problems(404, 409, 422)},
)
async def erase_job(request: Request, caller: JobsCaller, job_id: JobId) -> Response:
    parts = parts_of(request)
    async with parts.database.begin() as connection:
        erased = await jobs.erase(connection, caller.tenant_id, job_id)
    view = await parts.reader.read_truth(caller.tenant_id, job_id)
    if not erased:
        raise NotFinished("Only a finished job can be erased; cancel it first, or wait.")
    await parts.hot.bury(view)
    await parts.answers.forget(job_id)
    return Response(status_code=204)


@router.post(
    "/v1/jobs/{job_id}/feedback",
    summary="Say whether a finished job's answer was good",
    operation_id="give_feedback",
    status_code=204,
    responses={204: openapi.answer("Noted."), **openapi.problems(400, 404, 409, 413, 422)},
    openapi_extra=openapi.body("FeedbackCreate"),
)
async def give_feedback(request: Request, caller: JobsCaller, job_id: JobId) -> Response:
    parts = parts_of(request)
    feedback = validate(FeedbackCreate, await read_json(request))
    view = await parts.reader.read_truth(caller.tenant_id, job_id)
    if not view.is_finished:
        raise NotFinished("The job has not ended yet.")
    async with parts.database.begin() as connection:
        await jobs.give_feedback(
            parts.database,
            connection,
            caller.tenant_id,
            job_id,
            score=feedback.score,
            comment=feedback.comment,
        )
    metrics.FEEDBACK.labels("up" if feedback.score > 0 else "down").inc()
    return Response(status_code=204)
