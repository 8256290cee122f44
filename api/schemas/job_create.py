"""What a caller may ask beside a job itself: changes, feedback, and many jobs at once."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from queues.requests.job_request import Body, Instant, Metadata


class JobChange(Body):
    """What PATCH changes while a job is queued; what is left out stays."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "examples": [{"priority": 9}]})

    priority: Annotated[int, Field(ge=0, le=9)] = 5
    deadline: Instant | None = Field(default=None, description="null removes it.")
    metadata: Metadata = Field(default_factory=dict)


class FeedbackCreate(Body):
    model_config = ConfigDict(json_schema_extra={"examples": [{"score": 1}]})

    score: Literal[-1, 1]
    comment: Annotated[str, StringConstraints(max_length=4096)] | None = None


class BulkCreate(Body):
    """Each item is a `JobCreate` and is judged on its own."""

    jobs: Annotated[
        list[dict[str, Any]],
        Field(
            min_length=1,
            max_length=1000,
            json_schema_extra={"items": {"$ref": "#/components/schemas/JobCreate"}},
        ),
    ]


class BulkCancel(Body):
    """Jobs that are over already stay as they are."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ids": ["job_0123456789abcdefghijkl"]}]})

    ids: Annotated[
        list[Annotated[str, StringConstraints(pattern=r"^job_[0-9A-Za-z]{1,60}$")]],
        Field(min_length=1, max_length=1000),
    ]
