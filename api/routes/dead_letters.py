"""Jobs whose attempts are used up, of every tenant: for operators."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api import openapi
from api.dependencies import AdminCaller, parts_of
from api.job_answers import json_answer
from api.routes.job_ids import JobId
from api.schemas.admin_read import render_letter, render_timeline
from core.errors import Conflict, NotFound
from core.ids import new_id
from models.repositories import changes, dead_letters, submission
from models.repositories.dead_letters import Letter

router = APIRouter(tags=["operation"], default_response_class=Response)

After = Annotated[str | None, Query(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]+$")]


@router.get(
    "/v1/admin/dead_letters",
    summary="List dead letters, the newest job first",
    operation_id="list_dead_letters",
    responses={200: openapi.answer("A page.", "DeadLetterPage"), **openapi.problems(422)},
)
async def list_dead_letters(
    request: Request,
    _: AdminCaller,
    *,
    settled: Annotated[bool, Query(description="Those sent again or discarded, too.")] = False,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    async with parts_of(request).database.read() as connection:
        letters, has_more = await dead_letters.page(connection, settled=settled, after=after, limit=limit)
    return json_answer(
        {
            "object": "list",
            "data": [render_letter(letter) for letter in letters],
            "first_id": letters[0].job_id if letters else None,
            "last_id": letters[-1].job_id if letters else None,
            "has_more": has_more,
        }
    )


@router.get(
    "/v1/admin/dead_letters/{job_id}",
    summary="A dead letter and its history",
    operation_id="read_dead_letter",
    responses={200: openapi.answer("The letter.", "DeadLetterHistory"), **openapi.problems(404, 422)},
)
async def read_dead_letter(request: Request, _: AdminCaller, job_id: JobId) -> Response:
    async with parts_of(request).database.read() as connection:
        letter = await _letter(connection, job_id)
        history = await changes.timeline(connection, letter.tenant_id, job_id)
    return json_answer({**render_letter(letter), "timeline": render_timeline(history or [])})


@router.post(
    "/v1/admin/dead_letters/{job_id}/requeue",
    summary="Submit a dead letter's job again, as a new job of its tenant",
    operation_id="requeue_dead_letter",
    responses={
        200: openapi.answer("`requeued_as` names the new job.", "DeadLetterRead"),
        **openapi.problems(404, 409, 422),
    },
)
async def requeue_dead_letter(request: Request, _: AdminCaller, job_id: JobId) -> Response:
    parts = parts_of(request)
    async with parts.database.begin() as connection:
        await _letter(connection, job_id)
        job = await dead_letters.requeue(connection, job_id, new_id=new_id("job"), at=parts.clock.now())
        if job is None:
            raise Conflict("It was sent again or discarded before, or its prompt was erased.")
        await submission.accept(parts.database, connection, [job])
        letter = await _letter(connection, job_id)
    parts.submission.ring()
    return json_answer(render_letter(letter))


@router.post(
    "/v1/admin/dead_letters/{job_id}/discard",
    summary="Take a dead letter off the list; the failed job stays",
    operation_id="discard_dead_letter",
    responses={
        200: openapi.answer("The discarded letter.", "DeadLetterRead"),
        **openapi.problems(404, 409, 422),
    },
)
async def discard_dead_letter(request: Request, _: AdminCaller, job_id: JobId) -> Response:
    async with parts_of(request).database.begin() as connection:
        discarded = await dead_letters.discard(connection, job_id)
        letter = await _letter(connection, job_id)
    if not discarded:
        raise Conflict("It was sent again or discarded before.")
    return json_answer(render_letter(letter))


async def _letter(connection: Any, job_id: str) -> Letter:
    letter = await dead_letters.read(connection, job_id)
    if letter is None:
        raise NotFound("There is no such dead letter.")
    return letter
