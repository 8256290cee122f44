"""Batches of all tenants, for operators: stopped, and their failed lines run again. Never what is in them."""

from fastapi import APIRouter, Request, Response

from api import openapi
from api.dependencies import AdminCaller, Parts, parts_of
from api.headers import idempotency_key
from api.job_answers import json_answer
from api.routes.batch_ids import BatchId
from api.schemas.overview_read import render_batch_glimpse
from core.errors import NotFound
from models.repositories import activity

router = APIRouter(tags=["operation"], default_response_class=Response)


@router.post(
    "/v1/admin/batches/{batch_id}/cancel",
    summary="Cancel a batch of any tenant; what is done is delivered",
    operation_id="cancel_any_batch",
    responses={
        200: openapi.answer("The batch as it is now.", "BatchOverview"),
        **openapi.problems(404, 409, 422),
    },
)
async def cancel_any_batch(request: Request, _: AdminCaller, batch_id: BatchId) -> Response:
    parts = parts_of(request)
    await parts.batches.cancel(await _owner(parts, batch_id), batch_id)
    return await _seen(parts, batch_id)


@router.post(
    "/v1/admin/batches/{batch_id}/retry_failed",
    summary="Run the lines of a batch that did not complete once more, as a new batch of its tenant",
    operation_id="retry_any_batch",
    responses={
        200: openapi.answer("The new batch.", "BatchOverview", "Idempotency-Replayed"),
        **openapi.problems(404, 409, 422),
    },
    openapi_extra={"parameters": [openapi.IDEMPOTENCY_KEY]},
)
async def retry_any_batch(request: Request, _: AdminCaller, batch_id: BatchId) -> Response:
    """Its tenant's limits count its lines when they are loaded, as those of any batch."""
    parts = parts_of(request)
    await parts.submission.check_room()
    row, is_new = await parts.batches.retry_failed(
        batch_id,
        tenant_id=await _owner(parts, batch_id),
        now=parts.clock.now(),
        idempotency_key=idempotency_key(request),
    )
    return await _seen(parts, row.id, headers=None if is_new else {"Idempotency-Replayed": "true"})


async def _owner(parts: Parts, batch_id: str) -> str:
    async with parts.database.read() as connection:
        tenant_id = await activity.batch_owner(connection, batch_id)
    if tenant_id is None:
        raise NotFound("There is no such batch.")
    return tenant_id


async def _seen(parts: Parts, batch_id: str, *, headers: dict[str, str] | None = None) -> Response:
    async with parts.database.read() as connection:
        batch = await activity.batch(connection, batch_id)
    if batch is None:
        raise NotFound("There is no such batch any more.")
    return json_answer(render_batch_glimpse(batch), headers=headers)
