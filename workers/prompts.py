"""From what was accepted to what an engine takes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from models.repositories.execution import Claim
from models.service_class import ServiceClass
from workers.engines.protocol import Prompt, Sampling

# An engine with a queue of its own must not let a bulk job of priority 9 go before a premium one of 0.
_RISING: Final = (ServiceClass.BULK, ServiceClass.STANDARD, ServiceClass.PREMIUM)
_CLASS_STEP: Final = 10
_TOOLS: Final = ("tools", "tool_choice", "parallel_tool_calls")


def to_prompt(claim: Claim, *, chat: bool, salt: str | None = None) -> Prompt:
    """The engine's request; its id names job and attempt, so that an abort never hits a later attempt.

    The `salt` is the server's own: one that a request names reaches no engine.
    With `chat`, a bare prompt is a user's message: a chat model that only continues it answers nonsense.
    """
    request = claim.request
    messages, text = request.get("messages"), request.get("prompt")
    if chat and messages is None:
        messages, text = [{"role": "user", "content": text}], None
    return Prompt(
        request_id=f"{claim.view.id}.{claim.view.attempt}",
        messages=tuple(messages) if messages is not None else None,
        text=text,
        sampling=_limited(_sampling(request), claim.view.degradation),
        priority=_CLASS_STEP * _RISING.index(claim.view.service_class) + claim.view.priority,
        reasoning=False if _limit(claim.view.degradation) else request.get("reasoning"),
        tools={name: request[name] for name in _TOOLS if request.get(name) is not None} or None,
        cache_salt=salt,
    )


def _sampling(request: dict[str, Any]) -> Sampling:
    stop = request.get("stop") or ()
    defaults = Sampling()
    return Sampling(
        max_tokens=request.get("max_tokens") or defaults.max_tokens,
        temperature=_given(request, "temperature", defaults.temperature),
        top_p=_given(request, "top_p", defaults.top_p),
        top_k=request.get("top_k"),
        min_p=request.get("min_p"),
        presence_penalty=_given(request, "presence_penalty", 0.0),
        frequency_penalty=_given(request, "frequency_penalty", 0.0),
        repetition_penalty=_given(request, "repetition_penalty", 1.0),
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        seed=request.get("seed"),
        logprobs=request.get("logprobs"),
        response_format=request.get("response_format"),
    )


def _limit(degradation: Mapping[str, Any] | None) -> int | None:
    """The tokens of a truncated answer, which does not think first either."""
    return None if degradation is None else degradation.get("max_tokens")


def _limited(sampling: Sampling, degradation: Mapping[str, Any] | None) -> Sampling:
    limit = _limit(degradation)
    return sampling if limit is None else replace(sampling, max_tokens=min(limit, sampling.max_tokens))


def _given(request: dict[str, Any], name: str, default: float) -> float:
    """Zero is a value; only an absent field takes the default."""
    value = request.get(name)
    return default if value is None else value
