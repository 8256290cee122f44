"""What a server's or a connection's failure means for the job."""

import re
from typing import Any

import orjson

from core.errors import EngineFailure, EngineRefused, EngineUnavailable, PenstockError, PromptTooLong
from workers.engines.protocol import Prompt

# 401, 403, 404: the operator's key or address is wrong, not the request; 408, 425, 429: not now.
_LATER = frozenset({401, 403, 404, 408, 425, 429})
_SERVER_ERROR = 500
_OVERFLOW_CODES = frozenset({"exceed_context_size_error", "context_length_exceeded"})
# vLLM: "maximum context length is …"; SGLang: "longer than the model's context length".
_OVERFLOW = re.compile(r"(maximum|longer than|exceeds?)\b.{0,60}context (length|size|window)", re.IGNORECASE)
_SHOWN = 500


def failure_of(status: int, body: bytes, *, prompt: Prompt) -> PenstockError:
    """The error for an HTTP answer other than 200."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = body.decode(errors="replace")
    return _judge(status, document, prompt)


def failure_in_stream(document: Any, *, prompt: Prompt) -> PenstockError:
    """The error for an error event inside a stream that began with 200."""
    return _judge(_status_in(document) or _SERVER_ERROR, document, prompt)


def _judge(status: int, document: Any, prompt: Prompt) -> PenstockError:
    message, code = _message(document), _code(document)
    if code in _OVERFLOW_CODES or _OVERFLOW.search(message):
        return PromptTooLong("prompt" if prompt.messages is None else "messages", message)
    kind: type[EngineFailure] = (
        EngineUnavailable if status in _LATER or status >= _SERVER_ERROR else EngineRefused
    )
    return kind(f"The engine answered {status}: {message}")


def _inner(document: Any) -> Any:
    return document.get("error", document) if isinstance(document, dict) else document


def _message(document: Any) -> str:
    inner = _inner(document)
    if isinstance(inner, dict):
        inner = inner.get("message") or inner.get("detail") or inner
    return str(inner)[:_SHOWN] or "no reason given"


def _code(document: Any) -> str | None:
    inner = _inner(document)
    if not isinstance(inner, dict):
        return None
    return next((v for v in (inner.get("type"), inner.get("code")) if v in _OVERFLOW_CODES), None)


def _status_in(document: Any) -> int | None:
    inner = _inner(document)
    code = inner.get("code") if isinstance(inner, dict) else None
    return code if isinstance(code, int) else None
