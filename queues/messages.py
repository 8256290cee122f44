"""The wire format: one job, or one webhook delivery, as an ordinary Celery protocol-2 message."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Final

import orjson

from core.errors import InvalidField

GENERATE: Final = "penstock.generate"
DELIVER: Final = "penstock.deliver"
SCHEMA: Final = 1
CLASSES: Final = ("premium", "standard", "bulk")

_PERSISTENT: Final = 2
_EMBED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@dataclass(frozen=True, slots=True)
class JobEnvelope:
    """What a worker must know to order a job and to claim it.

    `generation` counts how often the job was released with other terms; the claim drops an old one.
    `cost` and `prefix_tokens` are tokens, `arrived` and `deadline` are seconds since the epoch, `priority`
    goes from 0 to 9 (first), `backlog` is how many tokens of its class waited when it was released.
    `attempts` counts those made so far, and `strikes` those of them under which an engine died or hung.
    `trace` is the `traceparent` that the run continues.
    """

    id: str
    generation: int
    model: str
    service_class: str
    tenant: str
    priority: int
    cost: int
    arrived: float
    deadline: float | None = None
    prefix: str | None = None
    prefix_tokens: int = 0
    backlog: int = 0
    attempts: int = 0
    strikes: int = 0
    trace: str | None = None
    batch: str | None = None
    trail: str | None = None
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True)
class DeliveryEnvelope:
    """A webhook delivery that is due; everything about it is in its row. An old `claim` is dropped."""

    id: str
    claim: int
    schema: int = SCHEMA


Envelope = JobEnvelope | DeliveryEnvelope


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """A message, whatever carries it; `properties` are AMQP's basic properties without the headers."""

    headers: dict[str, Any]
    properties: dict[str, Any]
    body: bytes


_FIELDS: Final = frozenset(field.name for field in fields(JobEnvelope))


def task_id(envelope: Envelope) -> str:
    """The job's id; with a suffix once it was released again, since workers remember revoked ids."""
    if isinstance(envelope, DeliveryEnvelope):
        return f"{envelope.id}.{envelope.claim}"
    return f"{envelope.id}.{envelope.generation}" if envelope.generation else envelope.id


def encode(envelope: Envelope) -> TaskMessage:
    identity = task_id(envelope)
    task, summary, priority, kwargs = _content(envelope)
    # Celery writes twice as many: what is missing is None or 0 to whoever looks.
    headers = {
        "lang": "py",
        "task": task,
        "id": identity,
        "root_id": identity,
        "argsrepr": "()",
        "kwargsrepr": summary,
        "origin": _origin(os.getpid()),
        "ignore_result": True,
    }
    if isinstance(envelope, JobEnvelope) and envelope.trace is not None:
        headers["traceparent"] = envelope.trace
    properties = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "correlation_id": identity,
        "delivery_mode": _PERSISTENT,
        "priority": priority,
    }
    return TaskMessage(headers, properties, orjson.dumps([[], kwargs, _EMBED]))


@cache
def _origin(pid: int) -> str:
    return f"relay{pid}@{socket.gethostname()}"


def _content(envelope: Envelope) -> tuple[str, str, int, dict[str, Envelope]]:
    """Task, what Flower shows as its arguments, priority, arguments."""
    if isinstance(envelope, DeliveryEnvelope):
        return DELIVER, f"{{'delivery': {envelope.id!r}}}", 0, {"delivery": envelope}
    return GENERATE, _summary(envelope), envelope.priority, {"job": envelope}


def decode(kwargs: Mapping[str, Any]) -> JobEnvelope:
    """The envelope in a task's keyword arguments. Raises `InvalidField`; unknown fields are ignored."""
    job = kwargs.get("job")
    if not isinstance(job, Mapping):
        raise InvalidField("job", "The message carries no job.")
    schema = job.get("schema")
    if not isinstance(schema, int) or not 1 <= schema <= SCHEMA:
        raise InvalidField(
            "job.schema",
            f"The message has schema {schema!r} and this worker reads up to {SCHEMA}: upgrade it first.",
        )
    try:
        return JobEnvelope(**{name: value for name, value in job.items() if name in _FIELDS})
    except TypeError as error:
        raise InvalidField("job", f"The message is incomplete: {error}.") from error


def decode_delivery(kwargs: Mapping[str, Any]) -> DeliveryEnvelope:
    """Raises `InvalidField`; unknown fields are ignored."""
    found = kwargs.get("delivery")
    if not isinstance(found, Mapping) or not isinstance(found.get("claim"), int):
        raise InvalidField("delivery", "The message carries no delivery.")
    return DeliveryEnvelope(id=str(found.get("id")), claim=found["claim"])


def identity(body: bytes) -> tuple[str, int] | None:
    """Id and generation of the job in a message of any schema; None where it names none."""
    try:
        job = orjson.loads(body)[1]["job"]
        return str(job["id"]), int(job["generation"])
    except (ValueError, TypeError, LookupError):
        return None


def _summary(envelope: JobEnvelope) -> str:
    return (
        f"{{'model': {envelope.model!r}, 'class': {envelope.service_class!r}, 'tenant': {envelope.tenant!r},"
        f" 'priority': {envelope.priority}, 'tokens': {envelope.cost}}}"
    )
