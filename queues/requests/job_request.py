"""What a job may ask for, whichever dialect it came in: the one schema of every accepted request."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic import (
    Tag as PydanticTag,
)
from pydantic_core import PydanticCustomError

from models.service_class import ServiceClass
from queues.requests.documents import DEEPEST, is_shallow
from queues.requests.json_schemas import is_wrapped, schema_of, schema_problem

_DURATION: Final = re.compile(r"(\d{1,6})(s|m|h|d)", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TTL: Final = (timedelta(minutes=1), timedelta(days=30))
_MAX_WAIT_MS: Final = 7 * 86_400_000
_NO_CONTROL: Final = r"^[^\x00-\x1f\x7f]*$"


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def _instant(value: object) -> object:
    """RFC 3339 with an offset; pydantic alone would take numbers and times without a zone."""
    if value is None:
        return None
    if not isinstance(value, str) or not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d", value, re.ASCII):
        raise ValueError("Must be an RFC 3339 time such as 2030-01-31T12:00:00Z.")
    try:
        instant = datetime.fromisoformat(value.upper())
        if instant.tzinfo is None:
            raise ValueError("Must say its offset from UTC: end it with Z or +02:00.")
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError("Is too far from now.") from None


def _lifetime(value: object) -> object:
    if value is None:
        return None
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('Must be a duration such as "90m", "24h" or "7d".')
    lifetime = timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    if not _TTL[0] <= lifetime <= _TTL[1]:
        raise ValueError("Must be from 1m to 30d.")
    return lifetime


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _shallow(value: object) -> object:
    if not is_shallow(value):
        raise ValueError(f"Must not be nested deeper than {DEEPEST} levels.")
    return value


Instant = Annotated[
    datetime,
    BeforeValidator(_instant),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2030-01-31T12:00:00Z"]}),
]
Lifetime = Annotated[
    timedelta,
    BeforeValidator(_lifetime),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,6}(s|m|h|d)$", "examples": ["7d"]}),
]
Text = Annotated[str, StringConstraints(min_length=1)]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=_NO_CONTROL)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=64)]
WebhookUrl = Annotated[
    str,
    StringConstraints(min_length=1, max_length=2048),
    Field(json_schema_extra={"examples": ["https://example.com/penstock"]}),
]
Metadata = Annotated[
    dict[Name, Annotated[str, StringConstraints(max_length=512)]],
    Field(max_length=16, description="Up to 16 pairs; keys to 64 and values to 512 characters."),
]


class CalledFunction(Body):
    name: Name
    arguments: str


class ToolCall(Body):
    """A call that the model made in an earlier answer."""

    id: Name
    type: Literal["function"]
    function: CalledFunction


class Message(Body):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str
    name: Name | None = None
    tool_calls: Annotated[list[ToolCall], Field(min_length=1, max_length=128)] | None = None
    tool_call_id: Name | None = None

    @model_validator(mode="after")
    def _fits_its_role(self) -> Self:
        if not self.content and self.tool_calls is None and self.role != "tool":
            raise PydanticCustomError("of_field.content", "Must not be empty.")
        if self.tool_calls is not None and self.role != "assistant":
            raise PydanticCustomError("of_field.tool_calls", "Belongs to the role assistant.")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise PydanticCustomError(
                "of_field.tool_call_id", "Belongs to the role tool, and must be given there."
            )
        return self


class Function(Body):
    name: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
    description: str | None = None
    parameters: Annotated[dict[str, Any], BeforeValidator(_shallow)] | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    name: Name


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


Tools = Annotated[list[Tool], Field(min_length=1, max_length=128)]


def _kind_of_choice(value: object) -> str:
    return "word" if isinstance(value, str) else "named"


# A discriminator, so that a mistake is told of the form that was meant.
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], PydanticTag("word")]
    | Annotated[NamedTool, PydanticTag("named")],
    Discriminator(_kind_of_choice),
]
Messages = Annotated[list[Message], Field(min_length=1, max_length=2048, fail_fast=True)]
Stop = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=256)]],
    BeforeValidator(_listed),
    Field(max_length=8),
]


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: Annotated[dict[str, Any], BeforeValidator(_shallow)] | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise PydanticCustomError(
                "of_field.json_schema", "Belongs to type json_schema, and must be given there."
            )
        return self

    @model_validator(mode="after")
    def _has_a_sound_schema(self) -> Self:
        given = self.json_schema
        problem = None if given is None else schema_problem(schema_of(given))
        if given is not None and problem is not None:
            field = "json_schema.schema" if is_wrapped(given) else "json_schema"
            raise PydanticCustomError("of_field." + field, "{problem}", {"problem": problem})
        return self


class Degradation(Body):
    allow: Annotated[list[Literal["truncate", "template", "similar"]], Field(max_length=3)] | None = Field(
        default=None, description="Levels the caller accepts; [] refuses all."
    )
    min_similarity: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    follow_up: bool = Field(
        default=False, description="After a degraded answer, a bulk job gives the full one when it is calm."
    )


class JobWebhook(Body):
    url: WebhookUrl
    events: Annotated[
        list[Literal["job.completed", "job.failed", "job.cancelled", "job.expired"]], Field(max_length=4)
    ] = Field(default_factory=list, description="Which ends of the job to tell; none named means all.")


Number = Annotated[float, Field(allow_inf_nan=False)]
MaxTokens = Annotated[int, Field(ge=1, le=1_000_000)]
ServedName = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class Sampled(Body):
    """How tokens are chosen; the same words in every dialect."""

    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1, le=10_000)] | None = None
    min_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    repetition_penalty: Annotated[Number, Field(gt=0, le=2)] | None = None
    stop: Stop | None = None
    seed: Annotated[int, Field(ge=0, le=4_294_967_295)] | None = None
    response_format: ResponseFormat | None = None
    reasoning: bool | None = None


class Handled(Body):
    """How the platform treats the job: OpenAI's clients send these in `extra_body`."""

    service_class: Annotated[ServiceClass, Field(strict=False)] = ServiceClass.STANDARD
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    max_wait_ms: Annotated[int, Field(ge=1, le=_MAX_WAIT_MS)] | None = None
    deadline: Instant | None = None
    cache_key: Tag | None = None
    cache: bool | None = Field(
        default=None,
        description="Kept answers to the same request: true also where answers are sampled, false never.",
    )
    degradation: Degradation | None = None
    result_ttl: Lifetime | None = None
    webhook: JobWebhook | None = Field(
        default=None, description="A URL to call when the job has ended, signed with the default secret."
    )
    metadata: Metadata = Field(default_factory=dict)
    tags: Annotated[list[Tag], Field(max_length=16)] = Field(default_factory=list)


class JobCreate(Sampled, Handled):
    """One prompt. Exactly one of `prompt` and `messages`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
                {"required": ["messages"], "properties": {"messages": {"type": "array"}}},
            ],
            "examples": [
                {"prompt": "Why is the sky blue?", "max_tokens": 64},
                {
                    "messages": [{"role": "user", "content": "How do I reset my password?"}],
                    "service_class": "premium",
                    "priority": 7,
                },
            ],
        }
    )

    model: ServedName | None = Field(
        default=None, description="A served name; may be left out when one model is served."
    )
    prompt: Text | None = None
    messages: Messages | None = None
    max_tokens: MaxTokens | None = Field(
        default=None, description="Default 256, or what the context leaves beside the prompt."
    )
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    not_before: Instant | None = None

    @model_validator(mode="after")
    def _has_one_prompt(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("of_field.prompt", "Give exactly one of prompt and messages.")
        if self.tools is not None and self.messages is None:
            raise PydanticCustomError("of_field.tools", "Belong to messages.")
        if self.tool_choice not in {None, "none", "auto"} and self.tools is None:
            raise PydanticCustomError("of_field.tool_choice", "Belongs to tools.")
        return self
