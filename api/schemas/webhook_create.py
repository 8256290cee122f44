"""What a caller may ask of its webhooks."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from queues.requests.job_request import Body, WebhookUrl

EventType = Literal[
    "job.completed",
    "job.failed",
    "job.cancelled",
    "job.expired",
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
]
Events = Annotated[list[EventType], Field(max_length=8, description="None named means all.")]
Description = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class EndpointCreate(Body):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"url": "https://example.com/penstock", "events": ["job.completed"]}]}
    )

    url: WebhookUrl
    events: Events = Field(default_factory=list)
    description: Description = ""


class EndpointChange(Body):
    """What is left out stays. `enabled: true` also forgets the failures so far."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "examples": [{"enabled": True}]})

    url: WebhookUrl = ""
    events: Events = Field(default_factory=list)
    description: Description = ""
    enabled: bool = True
