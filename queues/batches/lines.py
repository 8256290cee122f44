"""One line of a batch's file: what it asks, and every fault of it. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

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
_BODY: Final = "body"
_ENDPOINTS: Final = frozenset(_TRANSLATIONS)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a line asks for. `request` is what the engine is asked, before its tokens are counted."""

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


@dataclass(slots=True)
class Reading:
    """One line: all that is wrong with it, and what it asks, as far as that can be told beside its faults."""

    number: int
    custom_id: str | None = None
    asked: Asked | None = None
    problems: list[Problem] = field(default_factory=list)

    def note(self, error: BadInput, *, within: str = "") -> None:
        """One problem for each field; its name is that of the line."""
        if isinstance(error, InvalidFields):
            found = [(one["field"], one["message"]) for one in error.problems]
        elif isinstance(error, InvalidField):
            found = [(error.field, str(error))]
        else:
            self.problems.append(Problem("invalid_json_line", str(error), None, self.number))
            return
        for name, message in found:
            place = f"{within}.{name}" if within else name
            self.problems.append(Problem(error.code, f"{place}: {message}", place, self.number))

    def blames(self, name: str) -> bool:
        return any(problem.param == name for problem in self.problems)


def read_line(
    number: int,
    raw: bytes,
    *,
    endpoint: str,
    catalogue: Catalogue,
    degradation: Mapping[str, Any] | None,
) -> Reading:
    """Goes on behind each fault, as far as it can, so that nobody mends a file one fault at a time."""
    reading = Reading(number)
    document = _document(raw, reading)
    if document is None:
        return reading
    try:
        validate(BatchLine, document)
    except InvalidFields as error:
        reading.note(error)
    url = document.get("url")
    if isinstance(url, str) and url != endpoint and url in _ENDPOINTS:
        reading.note(InvalidField("url", f"Is {url}, but the batch's endpoint is {endpoint}."))
    if isinstance(document.get("custom_id"), str) and not reading.blames("custom_id"):
        reading.custom_id = document["custom_id"]
    if isinstance(body := document.get("body"), dict):
        reading.asked = _asked(body, reading, endpoint, catalogue)
    if reading.asked is not None and degradation is not None:
        reading.asked.request.setdefault("degradation", dict(degradation))
    return reading


def _document(raw: bytes, reading: Reading) -> dict[str, Any] | None:
    try:
        return parse_document(raw)
    except InvalidField as error:
        reading.note(error)
    except BadInput as error:
        reading.note(error)
        return None
    try:  # one character that cannot be stored hides nothing else
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _asked(body: dict[str, Any], reading: Reading, endpoint: str, catalogue: Catalogue) -> Asked | None:
    if misplaced := _misplaced(body):
        reading.note(InvalidFields(misplaced), within=_BODY)
        names = {one["field"] for one in misplaced}
        body = {name: value for name, value in body.items() if name not in names}
    job: OpenAIJob | None = None
    try:
        job = _TRANSLATIONS[endpoint](body)
    except (InvalidField, InvalidFields) as error:
        reading.note(error, within=_BODY)
    model = _model(body, reading, catalogue)
    if job is None or model is None:
        return None
    try:
        check_capabilities(model, job.wanted)
    except InvalidField as error:
        reading.note(error, within=_BODY)
    return Asked(reading.custom_id or "", model, job.wanted, _request(job.document), job.names)


def _misplaced(body: Mapping[str, Any]) -> list[dict[str, str]]:
    problems = [
        {"field": name, "message": "Belongs to the batch and not to a line: leave it out."}
        for name in _OF_THE_BATCH
        if body.get(name) is not None
    ]
    if body.get("stream"):
        problems.append({"field": "stream", "message": "Must be false: nobody reads a batch as it comes."})
    return problems


def _model(body: Mapping[str, Any], reading: Reading, catalogue: Catalogue) -> ServedModel | None:
    if reading.blames(f"{_BODY}.model"):
        return None
    try:
        return catalogue.get(body.get("model"))
    except InvalidField as error:
        reading.note(error, within=_BODY)
        return None


def _request(document: Mapping[str, Any]) -> dict[str, Any]:
    asked = {name: value for name, value in document.items() if value is not None and name not in _NOT_KEPT}
    if isinstance(asked.get("stop"), str):
        asked["stop"] = [asked["stop"]]
    return asked
