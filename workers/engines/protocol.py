"""What an engine is: prompts in, a stream of token deltas out."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Protocol

DEFAULT_PRIORITY: Final = 15  # of a standard job that asked for none


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
    """One request to an engine: exactly one of `messages` (the engine applies its template) and `text`.

    `priority` goes from 0 to 29, higher first: the job's own within ten of its class.
    """

    request_id: str
    messages: tuple[dict[str, Any], ...] | None = None
    text: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    priority: int = DEFAULT_PRIORITY
    reasoning: bool | None = None
    tools: dict[str, Any] | None = None  # tools, tool_choice and parallel_tool_calls, as far as given
    cache_salt: str | None = None  # prompts of different salts share nothing in the prefix cache


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the engine reports them; `cached_tokens` of the prompt came from its prefix cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the answer. The last one of a stream carries `finish_reason` and `usage`.

    An aborted stream ends with `finish_reason="abort"` and no usage: the engine no longer says.
    `logprobs` is the list of OpenAI's chat token entries, or the engine's own object. `pieces` counts those
    that the engine sent, where several came at once.
    """

    text: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: Usage | None = None
    logprobs: Any = None
    tool_calls: Any = None  # pieces of calls, as OpenAI streams them
    pieces: int = 1


class EngineState(StrEnum):
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    UNREACHABLE = "unreachable"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """`progressed_at` is the monotonic time, in seconds, of the last sign of work: any token, any prefill.

    A request that finds the engine idle counts as one, so that idleness is never taken for a stall.
    """

    state: EngineState
    progressed_at: float
    detail: str = ""


class Engine(Protocol):
    """Turns prompts into answers.

    `generate` is safe to call concurrently; the engine batches for itself. Closing the returned
    generator early (`aclose`, task cancellation) frees the engine's slot, as `abort` does.
    Raises `EngineUnavailable` or `GenerationStalled` when another worker or a later attempt might
    do better, and `EngineRefused` or `PromptTooLong` when none would.
    """

    async def start(self) -> None:
        """Returns when a prompt would be served; raises `EngineUnavailable` with the last log lines.

        It may be called again after that. `close` belongs to every engine, started or not.
        """

    def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]: ...

    async def abort(self, request_id: str) -> None:
        """Ends that stream with a last `abort` delta; an unknown request is nobody's mistake."""

    async def health(self) -> EngineHealth: ...

    async def close(self) -> None: ...
