"""`POST /v1/jobs`, in bulk, and again."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from api import openapi
from api.auth import Caller
from api.dependencies import JobsCaller, Parts, parts_of
from api.direct_route import DirectRoute
from api.headers import idempotency_key, is_repeat, preferred_wait
from api.intake import Intake, prepare, receive
from api.job_answers import answer_submitted, json_answer, outcome, refuse_late
from api.json_body import read_json
from api.routes.job_ids import JobId
from api.schemas.job_create import BulkCreate
from core.errors import Conflict, NotFinished, Unavailable
from core.tracing import tracing
from models.repositories import jobs
from models.repositories.submission import NewJob
from models.views import JobView
from queues.prompts import fingerprint
from queues.requests.job_request import JobCreate
from queues.requests.validation import validate

router = APIRouter(tags=["jobs"], default_response_class=Response, route_class=DirectRoute)

_BULK_KEY: Final = 250  # characters: with #999 it is still a key
_BREATH: Final = 25  # items that are checked before other requests get their turn


@router.post(
    "/v1/jobs",
    summary="Submit one prompt",
    operation_id="submit_job",
    status_code=202,
    responses={**openapi.submitted_answers(), **openapi.counted_problems(400, 413, 422)},
    openapi_extra={
        **openapi.body("JobCreate"),
        "parameters": [
            openapi.IDEMPOTENCY_KEY,
            openapi.RETRY_COUNT,
            openapi.PREFER,
            openapi.COMPLEXITY,
        ],
    },
)
async def submit(request: Request, caller: JobsCaller) -> Response:
    parts = parts_of(request)
    document = await read_json(request)
    wanted = validate(JobCreate, document)
    job = await prepare(
        parts,
        caller,
        wanted,
        document,
        key=idempotency_key(request),
        interactive=preferred_wait(request) is not None,
    )
    intake = await receive(parts, job, is_repeat=is_repeat(request))
    return await _answer(request, intake)


async def _answer(request: Request, intake: Intake) -> Response:
    view, wait = intake.view, preferred_wait(request)
    if wait is not None:
        view = await parts_of(request).reader.until_finished(view, wait)
        refuse_late(view)
    return answer_submitted(request, view, is_new=intake.is_new, waited=wait, position=intake.position)


@router.post(
    "/v1/jobs/bulk",
    summary="Submit up to 1,000 prompts, each with its own outcome",
    operation_id="submit_jobs_in_bulk",
    responses={
        200: openapi.answer("The outcomes, in the order given.", "BulkRead", *openapi.COUNTED),
        **openapi.counted_problems(400, 413, 422),
    },
    openapi_extra={
        **openapi.body("BulkCreate"),
        "parameters": [
            openapi.IDEMPOTENCY_KEY | {"description": "Item n is submitted under key#n."},
            openapi.COMPLEXITY,
        ],
    },
)
async def submit_in_bulk(request: Request, caller: JobsCaller) -> Response:
    documents = validate(BulkCreate, await read_json(request)).jobs
    key = idempotency_key(request, longest=_BULK_KEY)
    prepared = [
        await _prepare_item(request, caller, document, index=index, key=key)
        for index, document in enumerate(documents)
    ]
    outcomes = await _receive_all(request, prepared)
    data = [outcome(request, index, _told(one)) for index, one in enumerate(outcomes)]
    return json_answer({"object": "list", "data": data})


async def _prepare_item(
    request: Request, caller: Caller, document: dict[str, Any], *, index: int, key: str | None
) -> NewJob | Exception:
    if index % _BREATH == _BREATH - 1:
        await asyncio.sleep(0)
    try:
        wanted = validate(JobCreate, document)
        own_key = f"{key}#{index}" if key is not None else None
        return await prepare(parts_of(request), caller, wanted, document, key=own_key)
    except Exception as error:  # noqa: BLE001 - an item is a request of its own
        return error


async def _receive_all(
    request: Request, prepared: Sequence[NewJob | Exception]
) -> list[Intake | BaseException]:
    parts = parts_of(request)
    good = [job for job in prepared if isinstance(job, NewJob)]
    received = await asyncio.gather(*(_receive_apart(parts, job) for job in good), return_exceptions=True)
    down = [outcome for outcome in received if isinstance(outcome, Unavailable)]
    if down and len(down) == len(prepared):
        raise down[0]
    answers = iter(received)
    return [next(answers) if isinstance(job, NewJob) else job for job in prepared]


def _told(received: Intake | BaseException) -> JobView | BaseException:
    return received.view if isinstance(received, Intake) else received


async def _receive_apart(parts: Parts, job: NewJob) -> Intake:
    """Each job of a bulk request has a trace of its own, linked to the request's."""
    with tracing().span("bulk item", apart=True):
        return await receive(parts, job)


@router.post(
    "/v1/jobs/{job_id}/retry",
    summary="Submit a finished job again",
    operation_id="retry_job",
    status_code=202,
    responses={**openapi.submitted_answers(), **openapi.counted_problems(404, 409, 413, 422)},
    openapi_extra={"parameters": [openapi.IDEMPOTENCY_KEY, openapi.PREFER, openapi.COMPLEXITY]},
)
async def retry(request: Request, caller: JobsCaller, job_id: JobId) -> Response:
    parts = parts_of(request)
    earlier = await parts.reader.read_truth(caller.tenant_id, job_id)
    if not earlier.is_finished:
        raise NotFinished("The job has not ended yet; cancel it first, or wait.")
    async with parts.database.read() as connection:
        asked = await jobs.read_request(connection, caller.tenant_id, job_id)
    if asked is None:
        raise Conflict("The job's prompt was erased, so it cannot be run again.")
    job = await _again(request, caller, earlier, asked)
    return await _answer(request, await receive(parts, job))


async def _again(request: Request, caller: Caller, earlier: JobView, asked: dict[str, Any]) -> NewJob:
    """The same request without its times, which have passed."""
    document = {
        **asked,
        "model": earlier.model,
        "service_class": earlier.service_class,
        "priority": earlier.priority,
        "metadata": earlier.metadata,
        "tags": earlier.tags,
    }
    wanted = validate(JobCreate, document)
    key = idempotency_key(request)
    job = await prepare(parts_of(request), caller, wanted, document, key=key)
    same = fingerprint({"retry_of": earlier.id})
    return replace(job, retry_of=earlier.id, fingerprint=same)
