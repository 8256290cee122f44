"""A batch as OpenAI's clients know it; `service_class`, `retry_of` and `webhook` are ours."""

from datetime import datetime
from typing import Any, Literal

from api.schemas.job_read import Document
from models.repositories.batches import BatchRow


class BatchProblem(Document):
    code: str
    line: int | None
    message: str
    param: str | None


class BatchProblems(Document):
    object: Literal["list"]
    data: list[BatchProblem]


class RequestCounts(Document):
    total: int
    completed: int
    failed: int


class BatchRead(Document):
    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None
    errors: BatchProblems | None
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating",
        "failed",
        "in_progress",
        "finalizing",
        "completed",
        "expired",
        "cancelling",
        "cancelled",
    ]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: dict[str, Any] | None
    metadata: dict[str, str] | None
    service_class: str
    retry_of: str | None


class BatchPage(Document):
    object: Literal["list"]
    data: list[BatchRead]
    first_id: str | None
    last_id: str | None
    has_more: bool


def render_batch(row: BatchRow) -> dict[str, Any]:
    ended = {
        f"{status}_at": _seconds(row.finished_at) if row.status == status else None
        for status in ("completed", "failed", "expired", "cancelled")
    }
    return {
        "id": row.id,
        "object": "batch",
        "endpoint": row.endpoint,
        "model": row.models[0] if len(row.models) == 1 else None,
        "errors": {"object": "list", "data": row.problems} if row.problems else None,
        "input_file_id": row.input_file_id,
        "completion_window": row.window,
        "status": row.status,
        "output_file_id": row.output_file_id,
        "error_file_id": row.error_file_id,
        "created_at": int(row.created_at.timestamp()),
        "in_progress_at": _seconds(row.in_progress_at),
        "expires_at": int(row.expires_at.timestamp()),
        "finalizing_at": _seconds(row.finalizing_at),
        "cancelling_at": _seconds(row.cancelling_at),
        **ended,
        "request_counts": {"total": row.total, "completed": row.completed, "failed": row.failed},
        "usage": row.usage,
        "metadata": row.details or None,
        "service_class": row.service_class,
        "retry_of": row.retry_of,
    }


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())
