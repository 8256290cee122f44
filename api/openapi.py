"""The OpenAPI document: every status code and header that routes answer with, and the schemas."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from api.schemas import (
    admin_read,
    batch_read,
    degradation,
    file_read,
    job_create,
    job_read,
    limits_change,
    openai_read,
    overview_read,
    prefix_cache,
    report_read,
    templates,
    usage_read,
    webhook_create,
    webhook_read,
)
from queues.requests.batch_request import BatchCreate
from queues.requests.chat_request import ChatCreate
from queues.requests.completion_request import CompletionCreate
from queues.requests.job_request import JobCreate
from queues.templates import Intent

_REF: Final = "#/components/schemas/{model}"
_MODELS: Final[list[tuple[type[BaseModel], JsonSchemaMode]]] = [
    (JobCreate, "validation"),
    (ChatCreate, "validation"),
    (CompletionCreate, "validation"),
    (openai_read.CompletionRead, "serialization"),
    (openai_read.ModelRead, "serialization"),
    (openai_read.ModelPage, "serialization"),
    (BatchCreate, "validation"),
    (batch_read.BatchRead, "serialization"),
    (batch_read.BatchPage, "serialization"),
    (file_read.FileRead, "serialization"),
    (file_read.FilePage, "serialization"),
    (file_read.FileDeleted, "serialization"),
    (webhook_create.EndpointCreate, "validation"),
    (webhook_create.EndpointChange, "validation"),
    (webhook_read.EndpointRead, "serialization"),
    (webhook_read.EndpointCreated, "serialization"),
    (webhook_read.EndpointList, "serialization"),
    (webhook_read.SecretRead, "serialization"),
    (webhook_read.DeliveryRead, "serialization"),
    (webhook_read.DeliveryDetail, "serialization"),
    (webhook_read.DeliveryPage, "serialization"),
    (job_create.JobChange, "validation"),
    (job_create.FeedbackCreate, "validation"),
    (job_create.BulkCreate, "validation"),
    (job_create.BulkCancel, "validation"),
    (job_read.JobRead, "serialization"),
    (job_read.JobPage, "serialization"),
    (job_read.BulkRead, "serialization"),
    (job_read.ProblemRead, "serialization"),
    (job_read.HealthRead, "serialization"),
    (job_read.ReadyRead, "serialization"),
    (usage_read.UsageRead, "serialization"),
    (usage_read.PurgeRead, "serialization"),
    (usage_read.LimitsRead, "serialization"),
    (limits_change.LimitsChange, "validation"),
    (prefix_cache.PrefixCacheRead, "serialization"),
    (prefix_cache.PrefixCacheChange, "validation"),
    (admin_read.TimelineRead, "serialization"),
    (admin_read.DeadLetterRead, "serialization"),
    (admin_read.DeadLetterHistory, "serialization"),
    (admin_read.DeadLetterPage, "serialization"),
    (admin_read.ModelActivityRead, "serialization"),
    (admin_read.ModelActivityPage, "serialization"),
    (degradation.PinCreate, "validation"),
    (degradation.DegradationStatus, "serialization"),
    (Intent, "validation"),
    (templates.TemplateTry, "validation"),
    (templates.TemplateList, "serialization"),
    (templates.TemplateMatch, "serialization"),
    (overview_read.OverviewRead, "serialization"),
    (overview_read.JobStanding, "serialization"),
    (overview_read.JobGlimpsePage, "serialization"),
    (overview_read.BatchOverview, "serialization"),
    (report_read.ReportRead, "serialization"),
]

_TEXT: Final[dict[str, Any]] = {"type": "string"}
_COUNT: Final[dict[str, Any]] = {"type": "integer"}


def _header(description: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"description": description, "schema": schema, "required": required}


_HEADERS: Final = {
    "X-Request-Id": _header("Names this request in logs and errors.", _TEXT, required=True),
    "X-Job-Id": _header("The job's id.", _TEXT, required=True),
    "X-Degradation-Level": _header("0: what was asked.", {"type": "integer", "minimum": 0}, required=True),
    "ETag": _header("The job's version.", _TEXT, required=True),
    "Location": _header("The job's address.", _TEXT, required=True),
    "Retry-After": _header(
        "Seconds after which to ask again, an estimate.",
        {"type": "integer", "minimum": 1, "maximum": 120},
        required=True,
    ),
    "Preference-Applied": _header("The wait that was honoured.", _TEXT),
    "Idempotency-Replayed": _header("true: an earlier job answers.", {"type": "string", "enum": ["true"]}),
    "X-Request-Complexity-Applied": _header(
        "What the request was taken for.", {"type": "string", "enum": ["low", "medium", "high"]}
    ),
    "RateLimit-Policy": _header("Each limit: its name, quota q and window w in seconds.", _TEXT),
    "RateLimit": _header("Each limit: what remains, and the seconds t until all of it is back.", _TEXT),
    "x-ratelimit-limit-requests": _header("Requests a minute, of the tightest limit.", _COUNT),
    "x-ratelimit-remaining-requests": _header("Requests that remain.", _COUNT),
    "x-ratelimit-reset-requests": _header("Time until all are back, for example 6m0s.", _TEXT),
    "x-ratelimit-limit-tokens": _header("Tokens a minute, of the tightest limit.", _COUNT),
    "x-ratelimit-remaining-tokens": _header("Tokens that remain.", _COUNT),
    "x-ratelimit-reset-tokens": _header("Time until all are back, for example 6m0s.", _TEXT),
    "WWW-Authenticate": _header("The scheme to use.", _TEXT, required=True),
}
JOB_HEADERS: Final = ("X-Job-Id", "X-Degradation-Level", "ETag")
LIMIT_HEADERS: Final = (
    "RateLimit-Policy",
    "RateLimit",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
)
COUNTED: Final = ("X-Request-Complexity-Applied", *LIMIT_HEADERS)
_SUBMITTED: Final = ("Location", "Preference-Applied", "Idempotency-Replayed", *COUNTED)
_PROBLEMS: Final = {
    400: "The body is not JSON.",
    401: "No API key, or one that is not valid.",
    403: "The key may not do this.",
    404: "There is none, or it is another tenant's.",
    409: "Its state does not allow it.",
    413: "The body is too large.",
    422: "A field, named in `errors`, is not acceptable.",
    429: "Slow down.",
    500: "Something broke here.",
    502: "The job ended without an answer.",
    503: "A dependency is down, or the server drains.",
    504: "The job started and is not done; it runs on.",
}
_PROBLEM_HEADERS: Final = {401: ("WWW-Authenticate",), 429: ("Retry-After",), 503: ("Retry-After",)}


def content(schema: str, media_type: str = "application/json", example: Any = None) -> dict[str, Any]:
    described: dict[str, Any] = {"schema": {"$ref": _REF.format(model=schema)}}
    if example is not None:
        described["example"] = example
    return {media_type: described}


def answer(description: str, schema: str | None = None, *headers: str) -> dict[str, Any]:
    """One response; `X-Request-Id` is always there."""
    names = ("X-Request-Id", *headers)
    described: dict[str, Any] = {
        "description": description,
        "headers": {name: _HEADERS[name] for name in names},
    }
    if schema is not None:
        described["content"] = content(schema)
    return described


def job_answer(description: str) -> dict[str, Any]:
    return answer(description, "JobRead", *JOB_HEADERS)


def submitted_answers() -> dict[int | str, dict[str, Any]]:
    headers = (*JOB_HEADERS, *_SUBMITTED)
    return {
        200: answer("Finished within the wait, or a replayed job that is finished.", "JobRead", *headers),
        202: answer("Accepted.", "JobRead", *headers, "Retry-After"),
    }


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route; those that any authenticated route may give are added."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({401, 403, 500, 503, *statuses}):
        found[status] = {
            **answer(_PROBLEMS[status], None, *_PROBLEM_HEADERS.get(status, ())),
            "content": content("ProblemRead", "application/problem+json"),
        }
        if status == 409:  # noqa: PLR2004
            found[status]["headers"] |= {"Retry-After": {**_HEADERS["Retry-After"], "required": False}}
    return found


def counted_problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route that counts against limits: any may say where the caller stands."""
    found = problems(*statuses, 429)
    for answer_ in found.values():
        answer_["headers"] |= {name: _HEADERS[name] for name in COUNTED}
    return found


def openai_problems(*statuses: int, counted: bool = False) -> dict[int | str, dict[str, Any]]:
    """The same on OpenAI's routes, whose clients read plain JSON."""
    found = counted_problems(*statuses) if counted else problems(*statuses)
    for described in found.values():
        described["content"] = content("ProblemRead")
    return found


def openai_answers() -> dict[int | str, dict[str, Any]]:
    """Of a call that waits for its job: the answer, whole or in chunks, or why there is none."""
    found = openai_problems(400, 404, 413, 422, 429, 502, 504, counted=True)
    for status in (429, 502, 504):
        found[status]["headers"] |= {"X-Job-Id": {**_HEADERS["X-Job-Id"], "required": False}}
    headers = ("X-Job-Id", "X-Degradation-Level", "Idempotency-Replayed", *COUNTED)
    described = answer("The answer, or with `stream` its chunks.", "CompletionRead", *headers)
    described["content"] |= {"text/event-stream": {"schema": {"type": "string"}}}
    return {200: described, **found}


def body(schema: str) -> dict[str, Any]:
    """For routes that read their body themselves, after they know the caller."""
    return {"requestBody": {"required": True, "content": content(schema)}}


def header(name: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": schema or _TEXT,
    }


IDEMPOTENCY_KEY: Final = header(
    "Idempotency-Key",
    "Submits once, however often it is sent in 24 hours.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
)
RETRY_COUNT: Final = header("x-stainless-retry-count", "More than 0: a retry of an OpenAI client.", _COUNT)
PREFER: Final = header("Prefer", "wait=N: answer when the job is finished, or after N (1 to 60) seconds.")
IF_NONE_MATCH: Final = header("If-None-Match", "An ETag: 304 while the job's version is the same.")
LAST_EVENT_ID: Final = header("Last-Event-ID", "Go on after this event.")
COMPLEXITY: Final = header(
    "X-Request-Complexity",
    "How heavy the caller takes the request to be; its tokens count whatever is said.",
    {"type": "string", "enum": ["low", "medium", "high", "auto"]},
)
NO_KEY: Final[dict[str, Any]] = {"security": []}


def install(app: FastAPI) -> None:
    """Replaces FastAPI's document, which knows nothing of bodies that routes read themselves."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _document(app: FastAPI) -> dict[str, Any]:
    found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = found.setdefault("components", {})
    _, schemas = models_json_schema(_MODELS, ref_template=_REF)
    components["schemas"] = {**components.get("schemas", {}), **schemas["$defs"]}
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "sk-…"}}
    found["security"] = [{"key": []}]
    return found
