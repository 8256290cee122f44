"""Lines of the output and error files, in OpenAI's form. Pure."""

from datetime import datetime
from typing import Any, Final

import orjson

from models.degradation import shown
from models.lifecycle import Status
from models.repositories.batch_lines import Line
from models.views import JobView
from queues.batches.lines import CHAT
from queues.openai_answers import Form

CANCELLED: Final = {
    "code": "batch_cancelled",
    "message": "The batch was cancelled before this request ended.",
}
EXPIRED: Final = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}


def output_line(line: Line, endpoint: str) -> bytes:
    """Of a line that completed."""
    view = JobView(
        id=line.job_id,
        tenant_id="",
        model=line.model,
        service_class="",
        priority=0,
        status=line.status,
        version=0,
        created_at=line.created_at,
        output=line.output,
        usage=line.usage,
    )
    body = Form(is_chat=endpoint == CHAT).whole(view, shown(line.degradation))
    response = {"status_code": 200, "request_id": line.job_id, "body": body}
    return _encode(line.job_id, line.custom_id, response, None)


def error_line(line: Line, *, expires_at: datetime, is_cancelled: bool) -> bytes:
    """Of a line that ended otherwise."""
    return _encode(line.job_id, line.custom_id, None, reason(line, expires_at, is_cancelled=is_cancelled))


def lost_line(number: int, custom_id: str, *, is_cancelled: bool) -> bytes:
    """Of a line that never became a job."""
    return _encode(f"line_{number}", custom_id, None, CANCELLED if is_cancelled else EXPIRED)


def reason(line: Line, expires_at: datetime, *, is_cancelled: bool) -> dict[str, Any]:
    if line.error:
        return {"code": line.error.get("code"), "message": line.error.get("message")}
    if is_cancelled:
        return CANCELLED
    if line.status is Status.CANCELLED and line.finished_at and line.finished_at < expires_at:
        return {"code": "cancelled", "message": "The job of this request was cancelled."}
    return EXPIRED


def _encode(name: str, custom_id: str, response: Any, error: Any) -> bytes:
    document = {"id": name, "custom_id": custom_id, "response": response, "error": error}
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def add_usage(total: dict[str, int], usage: dict[str, Any] | None) -> None:
    """Tokens of one more line, into a sum by OpenAI's names."""
    used = usage or {}
    total["input_tokens"] += used.get("prompt_tokens", 0)
    total["cached_tokens"] += (used.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    total["output_tokens"] += used.get("completion_tokens", 0)


def usage_document(total: dict[str, int]) -> dict[str, Any]:
    return {
        "input_tokens": total["input_tokens"],
        "input_tokens_details": {"cached_tokens": total["cached_tokens"]},
        "output_tokens": total["output_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": total["input_tokens"] + total["output_tokens"],
    }
