"""One simulated engine, for load tests and benchmarks: real concurrency, invented tokens."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from zlib import crc32

from core.errors import EngineFailure, EngineUnavailable, PromptTooLong
from workers.engines.protocol import Delta, EngineHealth, EngineState, Prompt, Usage

_WORDS = ("the", "queue", "is", "short", "today", "and", "every", "job", "will", "be", "answered", "soon")


@dataclass(frozen=True, slots=True)
class Latency:
    """What a token costs. `INSTANT` only gives way to the event loop."""

    first_token: timedelta = timedelta(0)
    per_token: timedelta = timedelta(0)


INSTANT = Latency()


@dataclass(slots=True)
class _Request:
    """`ended` is set by an abort or by the engine's death; then `failure` says which."""

    ended: asyncio.Event
    failure: EngineFailure | None = None


class SimulatedEngine:
    """Deterministic: the same prompt has the same answer, of about 20 to 60 words.

    With `repetition_penalty` below 1 the answer goes on until `max_tokens`, as a real model's does.
    `fail` sees each prompt first and may return the error to raise in place of the answer.
    """

    def __init__(
        self,
        latency: Latency = INSTANT,
        *,
        slots: int = 8,
        context_length: int = 2048,
        fail: Callable[[Prompt], EngineFailure | None] | None = None,
    ) -> None:
        self.busy = 0
        self._latency = latency
        self._slots = asyncio.Semaphore(slots)
        self._context_length = context_length
        self._fail = fail
        self._state = EngineState.STARTING
        self._progressed_at = monotonic()
        self._requests: dict[str, _Request] = {}

    async def start(self) -> None:
        self._state = EngineState.READY

    async def generate(self, prompt: Prompt) -> AsyncGenerator[Delta, None]:
        words = _words(prompt)
        self._refuse(prompt, len(words))
        if not self._requests:
            self._progressed_at = monotonic()
        request = self._requests[prompt.request_id] = _Request(asyncio.Event())
        try:
            async with self._slots:
                self.busy += 1
                try:
                    async for delta in self._answer(prompt, words, request):
                        yield delta
                finally:
                    self.busy -= 1
        finally:
            if self._requests.get(prompt.request_id) is request:
                del self._requests[prompt.request_id]

    async def abort(self, request_id: str) -> None:
        request = self._requests.get(request_id)
        if request is not None:
            request.ended.set()

    async def health(self) -> EngineHealth:
        return EngineHealth(self._state, self._progressed_at)

    async def close(self) -> None:
        self._state = EngineState.CLOSED
        self._end_all()

    def crash(self) -> None:
        """Every generation under way fails; the engine serves again at once."""
        self._end_all()

    def _end_all(self) -> None:
        for request in self._requests.values():
            request.failure = EngineUnavailable("The simulated engine died.")
            request.ended.set()

    def _refuse(self, prompt: Prompt, length: int) -> None:
        if self._state is not EngineState.READY:
            raise EngineUnavailable("The simulated engine does not run.")
        if length >= self._context_length:
            raise PromptTooLong(
                "prompt" if prompt.messages is None else "messages",
                f"{length} tokens do not fit the context of {self._context_length}.",
            )
        failure = self._fail(prompt) if self._fail else None
        if failure is not None:
            raise failure

    async def _answer(
        self, prompt: Prompt, words: list[str], request: _Request
    ) -> AsyncGenerator[Delta, None]:
        seed = crc32(" ".join(words).encode())
        wanted = prompt.sampling.max_tokens
        natural = wanted if prompt.sampling.repetition_penalty < 1 else 20 + seed % 40
        room = self._context_length - len(words)
        count = min(wanted, natural, room)
        pause = self._latency.first_token
        for index in range(count):
            if await _ends(request, pause):
                yield Delta(finish_reason="abort")
                return
            self._progressed_at = monotonic()
            pause = self._latency.per_token
            yield Delta(_WORDS[(seed >> index % 16) % len(_WORDS)] + " ")
        reason = "stop" if natural <= min(wanted, room) and natural < wanted else "length"
        yield Delta(finish_reason=reason, usage=Usage(len(words), count))


async def _ends(request: _Request, pause: timedelta) -> bool:
    """Waits as long as the next token takes; True for an abort; raises what the engine died of."""
    if pause:
        with suppress(TimeoutError):
            await asyncio.wait_for(request.ended.wait(), pause.total_seconds())
    else:
        await asyncio.sleep(0)
    if request.failure is not None:
        raise request.failure
    return request.ended.is_set()


def _words(prompt: Prompt) -> list[str]:
    if prompt.messages is None:
        return (prompt.text or "").split()
    return [word for message in prompt.messages for word in str(message["content"]).split()]
