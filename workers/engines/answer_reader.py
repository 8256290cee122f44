"""Server-sent events of an OpenAI-compatible server, turned into deltas."""

from collections.abc import Sequence
from typing import Any

import orjson

from core.errors import EngineUnavailable
from workers.engines.failures import failure_in_stream
from workers.engines.protocol import Delta, Prompt, Usage


class AnswerReader:
    """Takes the bytes of one answer as they arrive; `last` is the delta that ends it."""

    def __init__(self, prompt: Prompt) -> None:
        self.done = False
        self._prompt = prompt
        self._rest = b""
        self._pieces = 0
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

    def feed(self, chunk: bytes) -> list[Delta]:
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        deltas = []
        for line in lines:
            if line.startswith(b"data:"):
                delta = self._event(line[5:].strip())
                if delta is not None:
                    deltas.append(delta)
        self._pieces += len(deltas)
        return deltas

    def last(self) -> Delta:
        """Raises `EngineUnavailable` when the answer broke off."""
        if self._finish_reason is None:
            raise EngineUnavailable("The engine ended its answer without a finish reason.")
        # A server that reports no usage still gave this many pieces.
        usage = self._usage or Usage(prompt_tokens=0, completion_tokens=self._pieces)
        return Delta(finish_reason=self._finish_reason, usage=usage)

    def _event(self, payload: bytes) -> Delta | None:
        if payload == b"[DONE]":
            self.done = True
            return None
        try:
            event = orjson.loads(payload)
            return self._delta(event)
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, IndexError) as error:
            raise EngineUnavailable(f"The engine sent an event that is not OpenAI's: {error!r}") from error

    def _delta(self, event: dict[str, Any]) -> Delta | None:
        if "error" in event:
            raise failure_in_stream(event, prompt=self._prompt)
        if event.get("usage"):
            self._usage = _usage(event)
        choices = event["choices"]
        return self._choice(choices[0]) if choices else None

    def _choice(self, choice: dict[str, Any]) -> Delta | None:
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        delta = choice.get("delta")
        calls = delta and delta.get("tool_calls")
        if delta is None:
            text, reasoning = choice.get("text") or "", ""
        else:
            text = delta.get("content") or ""
            reasoning = delta.get("reasoning_content") or ""
        logprobs = choice.get("logprobs")
        if not text and not reasoning and not logprobs and not calls:
            return None
        return Delta(text, reasoning, None, None, _entries(logprobs), calls or None)


def joined(deltas: Sequence[Delta]) -> list[Delta]:
    """Neighbours that are text alone, or thought alone, become one: each costs its way to the reader."""
    found: list[Delta] = []
    for delta in deltas:
        last = found[-1] if found else None
        if last is not None and _kind(last) and _kind(last) == _kind(delta):
            text, reasoning = last.text + delta.text, last.reasoning + delta.reasoning
            found[-1] = Delta(text, reasoning, pieces=last.pieces + delta.pieces)
        else:
            found.append(delta)
    return found


def _kind(delta: Delta) -> str | None:
    """None: more than words."""
    if delta.logprobs is not None or delta.tool_calls is not None or delta.finish_reason is not None:
        return None
    if delta.text and delta.reasoning:
        return None
    return "text" if delta.text else "reasoning"


def _entries(logprobs: dict[str, Any] | None) -> list[dict[str, Any]] | None:
    """OpenAI's chat entries; vLLM and SGLang answer completions in the older form."""
    if not logprobs:
        return None
    if "tokens" not in logprobs:
        return logprobs.get("content")
    tops = logprobs.get("top_logprobs") or [None] * len(logprobs["tokens"])
    return [
        {
            "token": token,
            "logprob": logprob,
            "bytes": list(token.encode()),
            "top_logprobs": [{"token": t, "logprob": p} for t, p in (top or {}).items()],
        }
        for token, logprob, top in zip(logprobs["tokens"], logprobs["token_logprobs"], tops, strict=True)
    ]


def _usage(event: dict[str, Any]) -> Usage:
    usage = event["usage"]
    details = usage.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens")
    if cached is None:  # llama.cpp before it reported the details
        cached = (event.get("timings") or {}).get("cache_n", 0)
    return Usage(usage["prompt_tokens"], usage.get("completion_tokens") or 0, cached or 0)
