"""A job as OpenAI's answer: whole, or in chunks. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from models.views import JobView

END: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Form:
    """One of OpenAI's two dialects, and whether the stream ends with its usage."""

    is_chat: bool
    include_usage: bool = False

    def whole(self, view: JobView, degradation: dict[str, Any]) -> dict[str, Any]:
        kind = "chat.completion" if self.is_chat else "text_completion"
        body = _message(view) if self.is_chat else {"text": (view.output or {}).get("text", "")}
        choice = {"index": 0, **body, "logprobs": self._logprobs(view), "finish_reason": finish_reason(view)}
        return {**_head(view, kind), "choices": [choice], "usage": _usage(view), "degradation": degradation}

    def role(self, view: JobView) -> Iterator[dict[str, Any]]:
        if self.is_chat:
            yield self._chunk(view, {"delta": {"role": "assistant", "content": ""}})

    def piece(self, view: JobView, *, text: str, reasoning: str) -> Iterator[dict[str, Any]]:
        if not self.is_chat:
            if text:
                yield self._chunk(view, {"text": text})
            return
        delta = {"content": text or None, "reasoning_content": reasoning or None}
        delta = {name: value for name, value in delta.items() if value}
        if delta:
            yield self._chunk(view, {"delta": delta})

    def last(self, view: JobView, degradation: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The finish reason, with what is known only at the end; then the usage where it was asked for."""
        calls = [{"index": n, **call} for n, call in enumerate(_calls(view))]
        body: dict[str, Any] = {"text": ""}
        if self.is_chat:
            body = {"delta": {"tool_calls": calls} if calls else {}}
        ending = {**body, "logprobs": self._logprobs(view)}
        yield self._chunk(view, ending, finish_reason(view)) | {"degradation": degradation}
        if self.include_usage:
            yield {**self._chunk(view, {}), "choices": [], "usage": _usage(view)}

    def _chunk(self, view: JobView, body: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.is_chat else "text_completion"
        choice = {"index": 0, "logprobs": None, **body, "finish_reason": finish}
        usage = {"usage": None} if self.include_usage else {}
        return {**_head(view, kind), "choices": [choice], **usage}

    def _logprobs(self, view: JobView) -> dict[str, Any] | None:
        entries = (view.output or {}).get("logprobs")
        if not entries:
            return None
        return {"content": entries, "refusal": None} if self.is_chat else _older_logprobs(entries)


def encode(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def finish_reason(view: JobView) -> str:
    return "tool_calls" if _calls(view) else (view.output or {}).get("finish_reason") or "stop"


def _head(view: JobView, kind: str) -> dict[str, Any]:
    return {"id": view.id, "object": kind, "created": int(view.created_at.timestamp()), "model": view.model}


def _message(view: JobView) -> dict[str, Any]:
    output = view.output or {}
    message: dict[str, Any] = {"role": "assistant", "content": output.get("text", ""), "refusal": None}
    if output.get("reasoning"):
        message["reasoning_content"] = output["reasoning"]
    if calls := _calls(view):
        message |= {"tool_calls": calls, "content": output.get("text") or None}
    return {"message": message}


def _calls(view: JobView) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = (view.output or {}).get("tool_calls") or []
    return calls


def _usage(view: JobView) -> dict[str, Any]:
    return view.usage or {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


def _older_logprobs(entries: list[dict[str, Any]]) -> dict[str, Any]:
    tokens = [entry["token"] for entry in entries]
    return {
        "tokens": tokens,
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [
            {top["token"]: top["logprob"] for top in entry.get("top_logprobs") or ()} for entry in entries
        ],
        "text_offset": _offsets(tokens),
    }


def _offsets(tokens: list[str]) -> list[int]:
    offsets, at = [], 0
    for token in tokens:
        offsets.append(at)
        at += len(token)
    return offsets
