"""OpenAI's chat/completions body, and the job that it asks for."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from queues.requests.job_request import MaxTokens, Message, ToolCall, ToolChoice, Tools
from queues.requests.openai_request import OpenAIJob, OpenAIRequest, Refusal, as_job, read_request

_NOT_SERVED: Final = (
    Refusal("logit_bias", "leave it out.", ({},)),
    Refusal("functions", "use tools.", ([],)),
    Refusal("function_call", "use tool_choice.", ("none", "auto")),
    Refusal("modalities", 'only ["text"] is.', (["text"],)),
    Refusal("audio", "only text is."),
    Refusal("prediction", "leave it out."),
    Refusal("verbosity", "say it in the prompt, or set max_completion_tokens.", ("medium",)),
    Refusal("web_search_options", "leave it out."),
)
_WITHOUT_THINKING: Final = frozenset({"none", "minimal"})


def _joined_text(value: object) -> object:
    """Text, or a list of text parts, which stand under each other."""
    if value is None:
        return ""
    if not isinstance(value, list):
        return value
    texts = []
    for index, part in enumerate(value):
        kind = part.get("type") if isinstance(part, dict) else None
        text = part.get("text") if isinstance(part, dict) else None
        if kind != "text" or not isinstance(text, str):
            raise ValueError(f'Part {index} is not {{"type": "text", "text": "…"}}: only text is taken.')
        texts.append(text)
    return "\n".join(texts)


def _or_none(value: object) -> object:
    return None if value == [] else value


class ChatMessage(Message):
    """Takes an answer's message as the client dumps it; what no prompt needs is left out of the job."""

    content: Annotated[
        str,
        BeforeValidator(_joined_text, json_schema_input_type=str | list[dict[str, str]] | None),
    ] = ""
    tool_calls: Annotated[list[ToolCall] | None, BeforeValidator(_or_none), Field(max_length=128)] = None
    refusal: str | None = None
    reasoning_content: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None

    def to_job(self) -> dict[str, Any]:
        return self.model_dump(include=set(Message.model_fields), exclude_none=True)


class ChatCreate(OpenAIRequest):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "default",
                    "messages": [{"role": "user", "content": "How do I reset my password?"}],
                },
            ]
        }
    )

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=2048, fail_fast=True)]
    max_tokens: MaxTokens | None = Field(default=None, description="The older name of max_completion_tokens.")
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = Field(
        default=None, description="none and minimal answer without thinking; others as the model does."
    )

    @model_validator(mode="after")
    def _says_each_thing_once(self) -> Self:
        if self.top_logprobs is not None and not self.logprobs:
            raise PydanticCustomError("of_field.top_logprobs", "Belongs to logprobs: true.")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise PydanticCustomError("of_field.max_tokens", "Give it or max_completion_tokens, not both.")
        return self


def chat_to_job(document: dict[str, Any]) -> OpenAIJob:
    """Raises `InvalidFields` with OpenAI's names."""
    request = read_request(ChatCreate, document, _NOT_SERVED)
    changes: dict[str, Any] = {"messages": [message.to_job() for message in request.messages]}
    names = {}
    if request.max_completion_tokens is not None:
        changes["max_tokens"] = request.max_completion_tokens
        names["max_tokens"] = "max_completion_tokens"
    if request.logprobs:
        changes["logprobs"] = request.top_logprobs or 0
    if request.reasoning_effort in _WITHOUT_THINKING and request.reasoning is None:
        changes["reasoning"] = False
    return as_job(request, document, changes=changes, names=names)
