"""OpenAI's older completions body, and the job that it asks for."""

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ConfigDict, Field

from queues.requests.job_request import MaxTokens, Text
from queues.requests.openai_request import OpenAIJob, OpenAIRequest, Refusal, as_job, read_request

_NOT_SERVED: Final = (
    Refusal("logit_bias", "leave it out.", ({},)),
    Refusal("echo", "put the prompt before the answer yourself.", (False,)),
    Refusal("best_of", "one answer is made per request.", (1,)),
    Refusal("suffix", "only what follows the prompt is.", ("",)),
)


def _only_one(value: object) -> object:
    if not isinstance(value, list):
        return value
    if len(value) != 1 or not isinstance(value[0], str):
        raise ValueError("Must be a string, or a list of one: send a request for each prompt, or a batch.")
    return value[0]


class CompletionCreate(OpenAIRequest):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "default", "prompt": "Why is the sky blue?"}]}
    )

    prompt: Annotated[Text, BeforeValidator(_only_one, json_schema_input_type=str | list[str])]
    max_tokens: MaxTokens | None = Field(default=None, description="Default 256, not OpenAI's 16.")
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


def completion_to_job(document: dict[str, Any]) -> OpenAIJob:
    """Raises `InvalidFields` with OpenAI's names."""
    request = read_request(CompletionCreate, document, _NOT_SERVED)
    changes: dict[str, Any] = {"prompt": request.prompt}
    if request.logprobs is not None:
        changes["logprobs"] = request.logprobs
    return as_job(request, document, changes=changes, names={})
