"""What a batch may ask for, and one line of its file."""

import re
from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ConfigDict, Field, StringConstraints

from models.service_class import ServiceClass
from queues.requests.job_request import Body, Degradation, Metadata, WebhookUrl

Endpoint = Literal["/v1/chat/completions", "/v1/completions"]

_WINDOW: Final = re.compile(r"(\d{1,5})(m|h|d)", re.ASCII)
_UNITS: Final = {"m": 60, "h": 3600, "d": 86400}
_SHORTEST: Final = timedelta(minutes=15)
_LONGEST: Final = timedelta(days=7)


def window_of(text: str) -> timedelta:
    """Raises `ValueError`."""
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ValueError('Must be a duration such as "30m", "24h" or "7d".')
    window = timedelta(seconds=int(found[1]) * _UNITS[found[2]])
    if not _SHORTEST <= window <= _LONGEST:
        raise ValueError("Must be from 15m to 7d.")
    return window


def _checked_window(text: str) -> str:
    window_of(text)
    return text


class BatchWebhook(Body):
    url: WebhookUrl
    events: Annotated[
        list[Literal["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]],
        Field(max_length=4),
    ] = Field(default_factory=list, description="Which ends of the batch to tell; none named means all.")


class OutputExpiresAfter(Body):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class BatchCreate(Body):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "input_file_id": "file_01C7zJ4Vt3mYQ2w8Kx5bRn",
                    "endpoint": "/v1/chat/completions",
                    "completion_window": "24h",
                }
            ]
        }
    )

    input_file_id: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[!-~]+$")]
    endpoint: Endpoint
    completion_window: Annotated[
        str,
        AfterValidator(_checked_window),
        Field(description="From 15m to 7d: what has not ended by then expires."),
    ]
    metadata: Metadata | None = None
    output_expires_after: OutputExpiresAfter | None = None
    service_class: Annotated[ServiceClass, Field(strict=False)] = ServiceClass.BULK
    degradation: Degradation | None = Field(default=None, description="Of lines that say nothing themselves.")
    webhook: BatchWebhook | None = Field(
        default=None, description="A URL to call when the batch has ended, signed with the default secret."
    )


class BatchLine(Body):
    """OpenAI's form of a line."""

    custom_id: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    method: Literal["POST"]
    url: Endpoint
    body: dict[str, Any]
