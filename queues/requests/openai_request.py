"""What OpenAI's two kinds of body share, and the job request that comes out of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, StringConstraints

from core.errors import InvalidField, InvalidFields
from queues.requests.job_request import Body, Handled, JobCreate, Sampled, ServedName, Tag
from queues.requests.validation import validate

_Request = TypeVar("_Request", bound="OpenAIRequest")

_MOST_PAIRS: Final = 16


class StreamOptions(Body):
    include_usage: bool = False
    include_obfuscation: bool = Field(default=False, description="Taken, and without effect.")


class OpenAIRequest(Sampled, Handled):
    """OpenAI's fields by OpenAI's names; those of `Handled`, `top_k` and the like come in `extra_body`."""

    model: ServedName | None = Field(
        default=None, description="A served name; may be left out when one model is served."
    )
    n: Annotated[int, Field(ge=1, le=1, description="One answer per request.")] = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="Kept in the job's metadata as `user`."
    )
    prompt_cache_key: Tag | None = Field(default=None, description="OpenAI's name for `cache_key`.")
    safety_identifier: Annotated[str, StringConstraints(max_length=512)] | None = Field(
        default=None, description="Taken, and without effect."
    )
    store: bool | None = Field(default=None, description="Taken, and without effect: every job is kept.")
    service_tier: Literal["auto", "default"] | None = Field(
        default=None, description="Taken, and without effect: `service_class` chooses."
    )


@dataclass(frozen=True, slots=True)
class Refusal:
    """A field of OpenAI's that is not served, the values that ask for nothing, and the way out."""

    field: str
    remedy: str
    neutral: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenAIJob:
    """One OpenAI request as a job: `document` is what `POST /v1/jobs` takes, `wanted` is that, checked."""

    document: dict[str, Any]
    wanted: JobCreate
    stream: bool
    include_usage: bool
    names: Mapping[str, str]  # of fields that the caller called otherwise

    def in_their_words(self, error: InvalidField) -> InvalidField:
        """The error of a later check, under the name that the caller used."""
        return type(error)(self.names.get(error.field, error.field), str(error))


def read_request(schema: type[_Request], document: dict[str, Any], refusals: tuple[Refusal, ...]) -> _Request:
    """Raises `InvalidFields` with OpenAI's names. A null asks for nothing."""
    problems = [
        {"field": refusal.field, "message": f"Is not served: {refusal.remedy}"}
        for refusal in refusals
        if document.get(refusal.field) is not None and document[refusal.field] not in refusal.neutral
    ]
    unserved = {refusal.field for refusal in refusals}
    kept = {
        name: value
        for name, value in document.items()
        if name not in unserved and (value is not None or name not in schema.model_fields)
    }
    try:
        request = validate(schema, kept)
    except InvalidFields as error:
        raise InvalidFields(problems + error.problems) from None
    if problems:
        raise InvalidFields(problems)
    if request.stream_options is not None and not request.stream:
        raise InvalidField("stream_options", "Belongs to stream: true.")
    return request


def as_job(
    request: OpenAIRequest,
    document: Mapping[str, Any],
    *,
    changes: Mapping[str, Any],
    names: Mapping[str, str],
) -> OpenAIJob:
    """The job's own fields as they came, with `changes`: what has another name or form there."""
    job = {name: value for name, value in document.items() if name in _JOB_FIELDS and value is not None}
    job |= changes
    if request.prompt_cache_key is not None:
        job.setdefault("cache_key", request.prompt_cache_key)
    if request.user is not None and len(request.metadata) < _MOST_PAIRS:
        job["metadata"] = {"user": request.user, **request.metadata}
    return OpenAIJob(
        document=job,
        wanted=validate(JobCreate, job),
        stream=request.stream,
        include_usage=request.stream_options is not None and request.stream_options.include_usage,
        names=names,
    )


# What is awaited cannot begin later, and logprobs have another form in each dialect.
_JOB_FIELDS: Final = JobCreate.model_fields.keys() - {"not_before", "logprobs"}
