"""What an engine is: prompts in, a stream of token deltas out."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Sampling:
    """The sampling fields of the HTTP contract; `None` leaves the engine's default."""

    max_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    response_format: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request to an engine: exactly one of `messages` (chat template applied by the engine) and `text`."""

    request_id: str
    messages: tuple[dict[str, Any], ...] | None = None
    text: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    priority: int = 5
    reasoning: bool | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the engine reports them; `cached_tokens` of the prompt came from its prefix cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer. The last one of a stream carries `finish_reason` and `usage`."""

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    logprobs: Any = None


class EngineState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """`progressed_at` is the monotonic time, in seconds, of the last sign of work: any token, any prefill."""

    state: EngineState
    progressed_at: float
    detail: str = ""


class Engine(Protocol):
    """Turns prompts into answers.

    `generate` is safe to call concurrently; the engine batches for itself. Closing the returned
    iterator early (`aclose`, task cancellation) frees the engine's slot, as `abort` does.
    Raises `EngineUnavailable` when another worker or a later attempt might do better, and
    `EngineRefused` or `PromptTooLong` when none would.
    """

    async def start(self) -> None:
        """Returns when a prompt would be served; raises `EngineUnavailable` with the last log lines."""

    def generate(self, prompt: Prompt) -> AsyncIterator[Delta]: ...

    async def abort(self, request_id: str) -> None: ...

    async def health(self) -> EngineHealth: ...

    async def close(self) -> None: ...
