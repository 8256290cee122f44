"""Where a tenant's events go, and the secrets that sign them."""

from fastapi import APIRouter, Request, Response

from api import openapi
from api.dependencies import JobsCaller, parts_of
from api.job_answers import json_answer
from api.json_body import read_json
from api.routes.webhook_ids import EndpointId
from api.schemas.webhook_create import EndpointChange, EndpointCreate
from api.schemas.webhook_read import render_delivery_detail, render_endpoint, render_secret
from core.errors import InvalidField
from queues.requests.validation import validate

router = APIRouter(tags=["webhooks"], default_response_class=Response)


@router.post(
    "/v1/webhook_endpoints",
    summary="Make an endpoint; its secret is in this answer only",
    operation_id="create_webhook_endpoint",
    status_code=201,
    responses={
        201: openapi.answer("The endpoint and its secret.", "EndpointCreated"),
        **openapi.problems(400, 409, 413, 422),
    },
    openapi_extra=openapi.body("EndpointCreate"),
)
async def create_endpoint(request: Request, caller: JobsCaller) -> Response:
    parts = parts_of(request)
    wanted = validate(EndpointCreate, await read_json(request))
    endpoint, secret = await parts.webhooks.create(
        caller.tenant_id,
        url=wanted.url,
        events=wanted.events,
        description=wanted.description,
        now=parts.clock.now(),
    )
    return json_answer({**render_endpoint(endpoint), "secret": secret}, 201)


@router.get(
    "/v1/webhook_endpoints",
    summary="List all endpoints, newest first",
    operation_id="list_webhook_endpoints",
    responses={200: openapi.answer("All of them.", "EndpointList"), **openapi.problems()},
)
async def list_endpoints(request: Request, caller: JobsCaller) -> Response:
    rows = await parts_of(request).webhooks.list(caller.tenant_id)
    return json_answer({"object": "list", "data": [render_endpoint(row) for row in rows], "has_more": False})


@router.post(
    "/v1/webhook_endpoints/default/rotate_secret",
    summary="Make a new default secret, which signs for the URLs of single jobs",
    operation_id="rotate_default_webhook_secret",
    responses={200: openapi.answer("The new secret.", "SecretRead"), **openapi.problems(413)},
)
async def rotate_default_secret(request: Request, caller: JobsCaller) -> Response:
    made = await parts_of(request).webhooks.rotate_secret(caller.tenant_id, None)
    return json_answer(render_secret(made))


@router.get(
    "/v1/webhook_endpoints/{endpoint_id}",
    summary="Read an endpoint",
    operation_id="read_webhook_endpoint",
    responses={200: openapi.answer("The endpoint.", "EndpointRead"), **openapi.problems(404, 422)},
)
async def read_endpoint(request: Request, caller: JobsCaller, endpoint_id: EndpointId) -> Response:
    return json_answer(render_endpoint(await parts_of(request).webhooks.read(caller.tenant_id, endpoint_id)))


@router.patch(
    "/v1/webhook_endpoints/{endpoint_id}",
    summary="Change an endpoint, disable or enable it",
    operation_id="change_webhook_endpoint",
    responses={
        200: openapi.answer("The changed endpoint.", "EndpointRead"),
        **openapi.problems(400, 404, 413, 422),
    },
    openapi_extra=openapi.body("EndpointChange"),
)
async def change_endpoint(request: Request, caller: JobsCaller, endpoint_id: EndpointId) -> Response:
    wanted = validate(EndpointChange, await read_json(request))
    given = wanted.model_dump(include=wanted.model_fields_set)
    if not given:
        raise InvalidField("body", "Give at least one of url, events, description and enabled.")
    enabled = given.pop("enabled", None)
    row = await parts_of(request).webhooks.change(caller.tenant_id, endpoint_id, given, enabled=enabled)
    return json_answer(render_endpoint(row))


@router.delete(
    "/v1/webhook_endpoints/{endpoint_id}",
    summary="Delete an endpoint; what waits for it is cancelled",
    operation_id="delete_webhook_endpoint",
    status_code=204,
    responses={204: openapi.answer("Deleted."), **openapi.problems(404, 422)},
)
async def delete_endpoint(request: Request, caller: JobsCaller, endpoint_id: EndpointId) -> Response:
    await parts_of(request).webhooks.remove(caller.tenant_id, endpoint_id)
    return Response(status_code=204)


@router.post(
    "/v1/webhook_endpoints/{endpoint_id}/rotate_secret",
    summary="Make a new secret; the old one signs too for 24 hours",
    operation_id="rotate_webhook_secret",
    responses={200: openapi.answer("The new secret.", "SecretRead"), **openapi.problems(404, 413, 422)},
)
async def rotate_secret(request: Request, caller: JobsCaller, endpoint_id: EndpointId) -> Response:
    made = await parts_of(request).webhooks.rotate_secret(caller.tenant_id, endpoint_id)
    return json_answer(render_secret(made))


@router.post(
    "/v1/webhook_endpoints/{endpoint_id}/test",
    summary="Send a webhook.test",
    operation_id="test_webhook_endpoint",
    status_code=202,
    responses={
        202: openapi.answer("The delivery, to be looked at again.", "DeliveryDetail"),
        **openapi.problems(404, 409, 413, 422),
    },
)
async def test_endpoint(request: Request, caller: JobsCaller, endpoint_id: EndpointId) -> Response:
    parts = parts_of(request)
    delivery = await parts.webhooks.test(
        caller.tenant_id, endpoint_id, now=parts.clock.now(), keep=parts.settings.upkeep.retention
    )
    return json_answer(render_delivery_detail(delivery), 202)
