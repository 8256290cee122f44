"""The delivery log: what was sent where, how often, and again."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from api import openapi
from api.dependencies import JobsCaller, parts_of
from api.job_answers import json_answer
from api.routes.jobs import Word
from api.routes.webhook_ids import DeliveryId
from api.schemas.webhook_read import render_delivery, render_delivery_detail
from models.repositories import delivery_log
from models.repositories.delivery_log import Filter

router = APIRouter(tags=["webhooks"], default_response_class=Response)

State = Literal["pending", "delivering", "delivered", "failed", "cancelled"]


@router.get(
    "/v1/webhook_deliveries",
    summary="List deliveries, newest first",
    operation_id="list_webhook_deliveries",
    responses={200: openapi.answer("A page.", "DeliveryPage"), **openapi.problems(422)},
)
async def list_deliveries(
    request: Request,
    caller: JobsCaller,
    *,
    job_id: Word = None,
    endpoint_id: Word = None,
    state: State | None = None,
    after: Word = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Response:
    wanted = Filter(job_id=job_id, endpoint_id=endpoint_id, state=state, after=after)
    async with parts_of(request).database.read() as connection:
        rows, has_more = await delivery_log.page(connection, caller.tenant_id, wanted, limit=limit)
    return json_answer(
        {
            "object": "list",
            "data": [render_delivery(row) for row in rows],
            "first_id": rows[0].id if rows else None,
            "last_id": rows[-1].id if rows else None,
            "has_more": has_more,
        }
    )


@router.get(
    "/v1/webhook_deliveries/{delivery_id}",
    summary="Read a delivery and its attempts",
    operation_id="read_webhook_delivery",
    responses={200: openapi.answer("The delivery.", "DeliveryDetail"), **openapi.problems(404, 422)},
)
async def read_delivery(request: Request, caller: JobsCaller, delivery_id: DeliveryId) -> Response:
    delivery = await parts_of(request).webhooks.delivery(caller.tenant_id, delivery_id)
    return json_answer(render_delivery_detail(delivery))


@router.post(
    "/v1/webhook_deliveries/{delivery_id}/redeliver",
    summary="Send it again, byte for byte and under the same id",
    operation_id="redeliver_webhook",
    status_code=202,
    responses={
        202: openapi.answer("The delivery, which is due now.", "DeliveryDetail"),
        **openapi.problems(404, 409, 413, 422),
    },
)
async def redeliver(request: Request, caller: JobsCaller, delivery_id: DeliveryId) -> Response:
    delivery = await parts_of(request).webhooks.redeliver(caller.tenant_id, delivery_id)
    return json_answer(render_delivery_detail(delivery), 202)
