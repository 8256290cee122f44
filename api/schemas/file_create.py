"""What the form of an upload says beside its file."""

from typing import Annotated, Literal

from pydantic import Field

from queues.requests.job_request import Body


class ExpiresAfter(Body):
    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class FileCreate(Body):
    purpose: Literal["batch"] = Field(description="Files are the input of batches.")
    expires_after: ExpiresAfter | None = None
