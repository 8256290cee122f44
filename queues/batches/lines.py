"""One line of a batch's file: checked, and what it asks. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from core.errors import BadInput, InvalidField, InvalidFields
from models.catalogue import Catalogue, ServedModel
from queues.requests.batch_request import BatchLine
from queues.requests.capabilities import check_capabilities
from queues.requests.chat_request import chat_to_job
from queues.requests.completion_request import completion_to_job
from queues.requests.documents import parse_document
from queues.requests.job_request import JobCreate
from queues.requests.openai_request import OpenAIJob
from queues.requests.validation import validate

CHAT: Final = "/v1/chat/completions"
_TRANSLATIONS: Final[Mapping[str, Callable[[dict[str, Any]], OpenAIJob]]] = {
    CHAT: chat_to_job,
    "/v1/completions": completion_to_job,
}
_OF_THE_BATCH: Final = ("service_class", "deadline", "max_wait_ms", "webhook")
# What a job's row and payload keep in columns of their own.
_NOT_KEPT: Final = {"model", "service_class", "priority", "metadata", "tags", "result_ttl"}
_MOST_SAID: Final = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """A line that passed. `request` is what the engine is asked, before its tokens are counted."""

    number: int
    custom_id: str
    model: ServedModel
    wanted: JobCreate
    request: dict[str, Any]
    names: Mapping[str, str]  # of fields that OpenAI calls otherwise


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a line, or the whole file where `line` is None, cannot be run; OpenAI's form."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None

    def document(self) -> dict[str, Any]:
        return {"code": self.code, "line": self.line, "message": self.message, "param": self.param}


def read_line(
    number: int,
    raw: bytes,
    *,
    endpoint: str,
    catalogue: Catalogue,
    degradation: Mapping[str, Any] | None,
) -> Asked:
    """Raises `BadInput`, with the line's own names of fields."""
    line = validate(BatchLine, parse_document(raw))
    if line.url != endpoint:
        raise InvalidField("url", f"Is {line.url}, but the batch's endpoint is {endpoint}.")
    problems = [
        {"field": name, "message": "Belongs to the batch and not to a line: leave it out."}
        for name in _OF_THE_BATCH
        if line.body.get(name) is not None
    ]
    if line.body.get("stream"):
        problems.append({"field": "stream", "message": "Must be false: nobody reads a batch as it comes."})
    if problems:
        raise InvalidFields(_in_body(problems))
    try:
        asked = _TRANSLATIONS[endpoint](line.body)
        model = catalogue.get(asked.wanted.model)
        check_capabilities(model, asked.wanted)
    except InvalidFields as error:
        raise InvalidFields(_in_body(error.problems)) from None
    except InvalidField as error:
        raise type(error)(f"body.{error.field}", str(error)) from None
    request = _request(asked.document)
    if degradation is not None:
        request.setdefault("degradation", dict(degradation))
    return Asked(number, line.custom_id, model, asked.wanted, request, asked.names)


def _in_body(problems: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{**one, "field": f"body.{one['field']}"} for one in problems]


def _request(document: Mapping[str, Any]) -> dict[str, Any]:
    asked = {name: value for name, value in document.items() if value is not None and name not in _NOT_KEPT}
    if isinstance(asked.get("stop"), str):
        asked["stop"] = [asked["stop"]]
    return asked


def problem_of(error: BadInput, line: int) -> Problem:
    """All that is wrong with a line, under the name of the first field."""
    if isinstance(error, InvalidFields):
        said = "; ".join(f"{one['field']}: {one['message']}" for one in error.problems[:_MOST_SAID])
        return Problem(error.code, said, error.problems[0]["field"], line)
    if isinstance(error, InvalidField):
        return Problem(error.code, f"{error.field}: {error}", error.field, line)
    return Problem("invalid_json_line", str(error), None, line)
