"""OpenAI's batches, and beyond them the output so far and a repetition of what failed."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from api import openapi
from api.dependencies import JobsCaller, parts_of
from api.headers import idempotency_key
from api.job_answers import json_answer
from api.json_body import read_json
from api.routes.batch_ids import BatchId
from api.routes.files import After
from api.schemas.batch_read import render_batch
from models.service_class import clamp
from queues.batches.service import NewBatch
from queues.requests.batch_request import BatchCreate
from queues.requests.validation import validate

router = APIRouter(tags=["batches"], default_response_class=Response)

_JSONL: Final = "application/jsonl"
_REPLAYED: Final = {"Idempotency-Replayed": "true"}


@router.post(
    "/v1/batches",
    summary="Run every line of a file",
    operation_id="create_batch",
    responses={
        200: openapi.answer("The batch.", "BatchRead", "Idempotency-Replayed", *openapi.LIMIT_HEADERS),
        **openapi.openai_problems(400, 413, 422, counted=True),
    },
    openapi_extra={**openapi.body("BatchCreate"), "parameters": [openapi.IDEMPOTENCY_KEY]},
)
async def create_batch(request: Request, caller: JobsCaller) -> Response:
    """The file is checked afterwards: `status` says how that went, and `errors` what is wrong by line."""
    parts = parts_of(request)
    wanted = validate(BatchCreate, await read_json(request))
    key = idempotency_key(request)
    if wanted.webhook is not None:
        await parts.webhooks.admit_job_url(caller.tenant_id, wanted.webhook.url)
    await parts.submission.check_room()
    await parts.door.admit(caller, tokens=0)
    new = NewBatch(
        tenant_id=caller.tenant_id,
        key_id=caller.key_id,
        service_class=clamp(wanted.service_class, caller.max_class).value,
        now=parts.clock.now(),
        idempotency_key=key,
    )
    row, is_new = await parts.batches.create(wanted, new)
    return json_answer(render_batch(row), headers=None if is_new else _REPLAYED)


@router.get(
    "/v1/batches",
    summary="List batches, newest first",
    operation_id="list_batches",
    responses={200: openapi.answer("A page.", "BatchPage"), **openapi.openai_problems(422)},
)
async def list_batches(
    request: Request,
    caller: JobsCaller,
    after: After = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    rows, has_more = await parts_of(request).batches.page(caller.tenant_id, after=after, limit=limit)
    return json_answer(
        {
            "object": "list",
            "data": [render_batch(row) for row in rows],
            "first_id": rows[0].id if rows else None,
            "last_id": rows[-1].id if rows else None,
            "has_more": has_more,
        }
    )


@router.get(
    "/v1/batches/{batch_id}",
    summary="Read a batch; its counts are live",
    operation_id="read_batch",
    responses={200: openapi.answer("The batch.", "BatchRead"), **openapi.openai_problems(404)},
)
async def read_batch(request: Request, caller: JobsCaller, batch_id: BatchId) -> Response:
    return json_answer(render_batch(await parts_of(request).batches.read(caller.tenant_id, batch_id)))


@router.post(
    "/v1/batches/{batch_id}/cancel",
    summary="Cancel a batch; what is done is delivered",
    operation_id="cancel_batch",
    responses={200: openapi.answer("The batch.", "BatchRead"), **openapi.openai_problems(404, 409, 413)},
)
async def cancel_batch(request: Request, caller: JobsCaller, batch_id: BatchId) -> Response:
    return json_answer(render_batch(await parts_of(request).batches.cancel(caller.tenant_id, batch_id)))


@router.get(
    "/v1/batches/{batch_id}/output",
    summary="The lines that completed; with partial=true while the batch runs",
    operation_id="read_batch_output",
    responses={
        200: {
            **openapi.answer("One line for each, in the order of the input."),
            "content": {_JSONL: {"schema": {"type": "string"}}},
        },
        **openapi.openai_problems(404, 409, 422),
    },
)
async def read_batch_output(
    request: Request, caller: JobsCaller, batch_id: BatchId, *, partial: bool = False
) -> Response:
    pieces = await parts_of(request).batches.output(caller.tenant_id, batch_id, partial=partial)
    return StreamingResponse(pieces, media_type=_JSONL)


@router.post(
    "/v1/batches/{batch_id}/retry_failed",
    summary="A new batch of the lines that did not complete",
    operation_id="retry_batch",
    responses={
        200: openapi.answer("The new batch.", "BatchRead", "Idempotency-Replayed", *openapi.LIMIT_HEADERS),
        **openapi.openai_problems(404, 409, 413, 422, counted=True),
    },
    openapi_extra={"parameters": [openapi.IDEMPOTENCY_KEY]},
)
async def retry_batch(request: Request, caller: JobsCaller, batch_id: BatchId) -> Response:
    parts = parts_of(request)
    await parts.submission.check_room()
    await parts.door.admit(caller, tokens=0)
    row, is_new = await parts.batches.retry_failed(
        batch_id,
        tenant_id=caller.tenant_id,
        now=parts.clock.now(),
        idempotency_key=idempotency_key(request),
    )
    return json_answer(render_batch(row), headers=None if is_new else _REPLAYED)
