"""OpenAI's `chat/completions`, `completions` and `models`, through the same queue as jobs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api import openapi
from api.auth import Caller
from api.awaited import Awaited, Piece
from api.dependencies import JobsCaller, parts_of
from api.errors import describe
from api.headers import idempotency_key, is_repeat
from api.intake import Intake, prepare, receive
from api.job_answers import json_answer, render
from api.json_body import read_json
from core.errors import InvalidField, NotFound, QueueTimeout
from core.logs import get_logger
from models.catalogue import ServedModel
from models.lifecycle import Status
from models.repositories.submission import NewJob
from models.views import JobView
from queues.openai_answers import END, Form, encode
from queues.policy.admission import interactive_limit
from queues.requests.chat_request import chat_to_job
from queues.requests.completion_request import completion_to_job
from queues.requests.openai_request import OpenAIJob

logger = get_logger(__name__)
router = APIRouter(tags=["openai"], default_response_class=Response)

_COMMENT: Final = b": keep-alive\n\n"
_HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_PARAMETERS: Final = [openapi.IDEMPOTENCY_KEY, openapi.RETRY_COUNT, openapi.COMPLEXITY]


@router.post(
    "/v1/chat/completions",
    summary="Answer a chat, whole or as a stream",
    operation_id="create_chat_completion",
    responses=openapi.openai_answers(),
    openapi_extra={**openapi.body("ChatCreate"), "parameters": _PARAMETERS},
)
async def create_chat_completion(request: Request, caller: JobsCaller) -> Response:
    return await _answer(request, caller, chat_to_job, is_chat=True)


@router.post(
    "/v1/completions",
    summary="Answer a prompt, whole or as a stream",
    operation_id="create_completion",
    responses=openapi.openai_answers(),
    openapi_extra={**openapi.body("CompletionCreate"), "parameters": _PARAMETERS},
)
async def create_completion(request: Request, caller: JobsCaller) -> Response:
    return await _answer(request, caller, completion_to_job, is_chat=False)


@router.get(
    "/v1/models",
    summary="List the served models",
    operation_id="list_models",
    responses={200: openapi.answer("Every served model.", "ModelPage"), **openapi.openai_problems()},
)
async def list_models(request: Request, _: JobsCaller) -> Response:
    models = parts_of(request).catalogue.models
    return json_answer({"object": "list", "data": [_model(model) for model in models]})


@router.get(
    "/v1/models/{name:path}",
    summary="Read a served model",
    operation_id="read_model",
    responses={200: openapi.answer("The model.", "ModelRead"), **openapi.openai_problems(404)},
)
async def read_model(request: Request, _: JobsCaller, name: str) -> Response:
    model = next((one for one in parts_of(request).catalogue.models if one.name == name), None)
    if model is None:
        raise NotFound("No model of that name is served.")
    return json_answer(_model(model))


def _model(model: ServedModel) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": 0, "owned_by": "penstock"}


async def _answer(
    request: Request,
    caller: Caller,
    translate: Callable[[dict[str, Any]], OpenAIJob],
    *,
    is_chat: bool,
) -> Response:
    asked = translate(await read_json(request))
    form = Form(is_chat, include_usage=asked.include_usage)
    job, starts_within = await _prepare(request, caller, asked)
    intake = await _receive(request, job)
    awaited = Awaited(
        parts_of(request),
        intake.view,
        starts_within=starts_within,
        is_ours=intake.is_new,
        key=job.idempotency_key,
    )
    replayed = {} if intake.is_new else {"Idempotency-Replayed": "true"}
    if asked.stream:
        return await _open_stream(request, awaited, form, replayed)
    view = await _until_answered(request, awaited)
    document = form.whole(view, render(request, view)["degradation"])
    return json_answer(document, 200, _job_headers(request, awaited) | replayed)


async def _prepare(request: Request, caller: Caller, asked: OpenAIJob) -> tuple[NewJob, timedelta]:
    """The job, and how long it may wait for its start: as it says, else as its class does."""
    parts, wanted = parts_of(request), asked.wanted
    if "service_class" not in asked.document:
        wanted = wanted.model_copy(update={"service_class": caller.max_class})
    key = idempotency_key(request)
    try:
        job = await prepare(parts, caller, wanted, asked.document, key=key, interactive=True)
    except InvalidField as error:
        raise asked.in_their_words(error) from error
    longest = interactive_limit(parts.settings.overload.interactive, job.service_class)
    return job, job.queue_deadline - job.created_at if job.queue_deadline else longest


async def _receive(request: Request, job: NewJob) -> Intake:
    """A caller who was told to come again, for his job waited too long, comes with a new one."""
    parts, again = parts_of(request), is_repeat(request)
    intake = await receive(parts, job, is_repeat=again)
    if intake.is_new or job.idempotency_key is None or not _waited_too_long(intake.view):
        return intake
    await parts.submission.free_key(job.tenant_id, job.idempotency_key, job_id=intake.view.id)
    return await receive(parts, job, is_repeat=again)


def _waited_too_long(view: JobView) -> bool:
    return view.status is Status.EXPIRED and (view.error or {}).get("code") == QueueTimeout.code


def _job_headers(request: Request, awaited: Awaited) -> dict[str, str]:
    level = render(request, awaited.view)["degradation"]["level"]
    return {"X-Job-Id": awaited.view.id, "X-Degradation-Level": str(level)}


async def _until_answered(request: Request, awaited: Awaited) -> Any:
    """The finished job. A client that is gone takes its job along."""
    answer = asyncio.create_task(awaited.finish())
    gone = asyncio.create_task(_until_gone(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            await awaited.release()
            answer.cancel()
            raise NotFound("The client is gone.")
        return answer.result()
    finally:
        awaited.leave()
        for task in (answer, gone):
            task.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _open_stream(
    request: Request, awaited: Awaited, form: Form, headers: dict[str, str]
) -> StreamingResponse:
    """What goes wrong before the first piece, or the first silence, is an HTTP error."""
    pieces = awaited.pieces()
    try:
        first = await anext(pieces)
    except BaseException:
        awaited.leave()
        raise
    stream = _stream(request, awaited, form, first, pieces)
    headers = _HEADERS | headers | _job_headers(request, awaited)
    return _Watched(stream, awaited, headers=headers)


async def _stream(
    request: Request, awaited: Awaited, form: Form, first: Piece, pieces: AsyncIterator[Piece]
) -> AsyncIterator[bytes]:
    try:
        for chunk in form.role(awaited.view):
            yield encode(chunk)
        piece: Piece | None = first
        while piece is not None:
            if piece.text is None:
                yield _COMMENT
            else:
                for chunk in form.piece(awaited.view, text=piece.text, reasoning=piece.reasoning):
                    yield encode(chunk)
            piece = await anext(pieces, None)
        for chunk in form.last(awaited.view, render(request, awaited.view)["degradation"]):
            yield encode(chunk)
        yield END
    except Exception as error:  # noqa: BLE001 - the edge of a stream that has begun
        problem = describe(error)
        logger.info("stream_broken", job_id=awaited.view.id, code=problem.code)
        yield encode(problem.body(instance=request.scope["penstock_request_id"]))


class _Watched(StreamingResponse):
    """Takes the job along when the client goes."""

    def __init__(self, stream: AsyncIterator[bytes], awaited: Awaited, headers: dict[str, str]) -> None:
        super().__init__(stream, media_type="text/event-stream", headers=headers)
        self._awaited = awaited

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with suppress(NotFound):
                await self._awaited.release()
