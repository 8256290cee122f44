"""What an error is in HTTP: its status, its headers and its one body. Nothing else knows."""

import http
import math
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.meter import count_refusal
from core import errors
from core.errors import PenstockError
from queues.requests.validation import field_problems

MAX_RETRY_AFTER: Final = 120

STATUS: Final[dict[type[PenstockError], int]] = {
    PenstockError: 500,
    errors.BadInput: 400,
    errors.InvalidField: 422,
    errors.InvalidFields: 422,
    errors.BodyTooLarge: 413,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.IdempotencyMismatch: 422,
    errors.QueueFull: 429,
    errors.JobFailed: 502,
    errors.StillRunning: 504,
    errors.WorkerLost: 502,
    errors.LimitReached: 429,
    errors.Unavailable: 503,
    errors.EngineFailure: 502,
    errors.EngineUnavailable: 503,
    errors.EngineRefused: 422,
    errors.GenerationStalled: 504,
    errors.ConfigurationMistake: 500,
}

_OPENAI_PATHS: Final = (
    "/v1/chat/",
    "/v1/completions",
    "/v1/files",
    "/v1/batches",
    "/v1/models",
)
_OPENAI_TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_CODES: Final = {
    400: "invalid_request",
    401: "invalid_api_key",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "body_too_large",
    415: "unsupported_media_type",
}
_RETRY_SOON: Final = {409: 1.0, 429: 5.0, 503: 5.0}


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as its reader sees it."""

    status: int
    code: str
    detail: str
    errors: list[dict[str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)

    def body(self, *, instance: str, base: str = "") -> dict[str, Any]:
        is_ours = self.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR
        kind = "server_error" if is_ours else "invalid_request_error"
        return {
            "type": f"{base}/errors/{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "code": self.code,
            "errors": self.errors,
            "error": {
                "message": self.detail,
                "type": _OPENAI_TYPES.get(self.status, kind),
                "param": self.errors[0]["field"] if self.errors else None,
                "code": self.code,
            },
        }


def status_of(error: type[PenstockError]) -> int:
    return next(STATUS[base] for base in error.__mro__ if base in STATUS)


def describe(error: Exception) -> Problem:
    """Any error as a problem. What nobody foresaw says nothing about itself."""
    match error:
        case errors.InvalidFields():
            return invalid(error.problems)
        case PenstockError():
            return _describe_own(error)
        case RequestValidationError():
            return invalid(field_problems(error.errors()))
        case HTTPException():
            code = _CODES.get(error.status_code, "http_error")
            detail = http.HTTPStatus(error.status_code).phrase
            return Problem(error.status_code, code, detail, headers=dict(error.headers or {}))
        case _:
            return Problem(500, PenstockError.code, "Something broke here; it is logged under this instance.")


def _describe_own(error: PenstockError) -> Problem:
    status = status_of(type(error))
    found, detail = [], str(error)
    if isinstance(error, errors.InvalidField):
        found, detail = [{"field": error.field, "message": detail}], f"{error.field}: {detail}"
    headers = {}
    if error.retryable and status in _RETRY_SOON:
        headers["Retry-After"] = retry_after(error.retry_after or _RETRY_SOON[status])
    if isinstance(error, errors.JobFailed | errors.StillRunning):
        # The official clients would run the job once more.
        headers |= {"x-should-retry": "false", "X-Job-Id": error.job_id}
    if status == http.HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return Problem(status, error.code, detail, found, headers)


def retry_after(seconds: float) -> str:
    """Whole seconds, from 1 to 120."""
    return str(min(MAX_RETRY_AFTER, max(1, math.ceil(seconds))))


def invalid(problems: list[dict[str, str]]) -> Problem:
    first = problems[0]
    return Problem(422, errors.InvalidField.code, f"{first['field']}: {first['message']}", problems)


def respond(request: Request, problem: Problem) -> Response:
    is_openai = request.url.path.startswith(_OPENAI_PATHS)
    settings = request.app.state.settings.api
    instance = request.scope.get("penstock_request_id", "")
    return Response(
        orjson.dumps(problem.body(instance=instance, base=settings.public_url)),
        status_code=problem.status,
        media_type="application/json" if is_openai else "application/problem+json",
        headers=problem.headers,
    )


async def answer_error(request: Request, error: Exception) -> Response:
    problem = describe(error)
    count_refusal(problem.code)
    return respond(request, problem)


def install(app: FastAPI) -> None:
    for kind in (PenstockError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer_error)
