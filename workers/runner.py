"""One claimed job: from its prompt to its ending."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

from core.errors import (
    EngineFailure,
    EngineUnavailable,
    EngineUnreachable,
    GenerationStalled,
    PenstockError,
    PromptTooLong,
)
from core.tracing import tracing
from models.degradation import level_of, shown
from models.lifecycle import Status, attempts_left
from models.repositories import dead_letters
from models.repositories.execution import Claim, Ending
from models.repositories.submission import ReadyAnswer
from models.views import JobView
from workers.engines.protocol import Delta, Engine, Usage
from workers.patience import Patience
from workers.prompts import to_prompt
from workers.salts import Salts

_SHARED: Final = Salts()
_TOKENS_PER_STALL: Final = 20_000  # tokens that double the patience with one job


def _unheeded() -> None:
    """Nobody asks when an answer begins."""


class Stop(StrEnum):
    """Why a running job is taken from the engine."""

    CANCELLED = "cancelled"
    LOST = "lease_lost"
    DRAINED = "drained"
    STALLED = "engine_stalled"


@dataclass(frozen=True, slots=True)
class GiveBack:
    """The attempt ends without an ending: the job waits again, or belongs to someone else already."""

    reason: str
    excused: bool
    struck: bool = False  # the engine died or hung under it


@dataclass(frozen=True, slots=True)
class Discard:
    """Somebody else owns the job; nothing is to be recorded."""

    reason: str


Outcome = Ending | GiveBack | Discard


class Events(Protocol):
    """Where a job's progress goes; never blocks and never raises."""

    def token(
        self, job_id: str, *, attempt: int, index: int, text: str, reasoning: str, count: int
    ) -> None: ...

    def emit(self, job_id: str, kind: str, data: dict[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one job may take without a token, how often it may be tried, how long it is kept."""

    job_stall: timedelta
    max_attempts: int
    retention: timedelta


@dataclass(slots=True)
class Answer:
    """The answer so far; times are monotonic seconds."""

    heard: Callable[[], None] = _unheeded
    began: float = field(default_factory=time.monotonic)
    first_token: float | None = None
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    finish_reason: str | None = None
    usage: Usage | None = None
    deltas: int = 0

    def add(self, delta: Delta) -> None:
        if delta.text or delta.reasoning:
            if self.first_token is None:
                self.first_token = time.monotonic()
                self.heard()
            self.deltas += delta.pieces
        self.text.append(delta.text)
        self.reasoning.append(delta.reasoning)
        self.logprobs.extend(delta.logprobs or ())
        for piece in delta.tool_calls or ():
            _add_call(self.calls, piece)
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.usage = delta.usage or self.usage

    def output(self) -> dict[str, Any]:
        output: dict[str, Any] = {
            "text": "".join(self.text),
            "reasoning": "".join(self.reasoning) or None,
            "finish_reason": self.finish_reason or "stop",
        }
        if self.calls:
            output["tool_calls"] = [self.calls[index] for index in sorted(self.calls)]
        return output | ({"logprobs": self.logprobs} if self.logprobs else {})

    def timings(self, claim: Claim) -> dict[str, float]:
        """Milliseconds: waiting for the first start, until the first token, and in this run."""
        started = claim.view.started_at or claim.view.created_at
        timings = {
            "queue_ms": max(0.0, _ms((started - claim.view.created_at).total_seconds())),
            "run_ms": _ms(time.monotonic() - self.began),
        }
        if self.first_token is not None:
            timings["first_token_ms"] = _ms(self.first_token - self.began)
        return timings


class JobRunner:
    """Runs claimed jobs on one engine. `run` always returns an outcome, whatever the engine does."""

    def __init__(
        self, engine: Engine, events: Events, limits: Limits, *, chat: bool = True, salts: Salts = _SHARED
    ) -> None:
        self._engine = engine
        self._events = events
        self._limits = limits
        self._chat = chat
        self._salts = salts

    async def run(
        self, claim: Claim, stopped: "asyncio.Future[Stop]", heard: Callable[[], None] = _unheeded
    ) -> Outcome:
        """`stopped` is resolved with the reason before the task that runs this is cancelled.

        `heard` is called at the first sign of an answer: the engine has begun this job.
        """
        answer = Answer(heard)
        self._announce(claim)
        try:
            async with asyncio.timeout(_until(claim.view.deadline)):
                with tracing().span("engine.generate", "client") as span:
                    await self._generate(claim, answer)
                    usage = answer.usage or Usage(0, 0)
                    span.note(prompt_tokens=usage.prompt_tokens, cached_tokens=usage.cached_tokens)
                    span.note(completion_tokens=usage.completion_tokens)
        except TimeoutError:
            error = {"code": "deadline_exceeded", "message": "the deadline passed while the job ran"}
            return self._ending(claim, Status.EXPIRED, answer, error=error)
        except asyncio.CancelledError:
            return self.stopped(claim, stopped.result() if stopped.done() else Stop.DRAINED, answer)
        except PenstockError as error:
            return self._failed(claim, answer, error)
        return self._ending(claim, Status.COMPLETED, answer, output=answer.output())

    def answered(self, claim: Claim, answer: ReadyAnswer) -> Ending:
        """The ending of a job that needed no engine after all; the label is the claim's."""
        if level_of(claim.view.degradation):
            self._events.emit(claim.view.id, "degraded", shown(claim.view.degradation))
        ending = self._ending(claim, Status.COMPLETED, Answer(), output=answer.output)
        return replace(ending, usage=answer.usage)

    def cancelled(self, claim: Claim) -> Ending:
        return self._ending(claim, Status.CANCELLED, Answer())

    def _announce(self, claim: Claim) -> None:
        job = claim.view
        if job.attempt > 1:
            self._events.emit(job.id, "reset", {"attempt": job.attempt})
        data = {"status": Status.RUNNING.value, "attempt": job.attempt, "version": job.version}
        self._events.emit(job.id, "status", data)
        if job.degradation is not None:
            self._events.emit(job.id, "degraded", shown(job.degradation))

    async def _generate(self, claim: Claim, answer: Answer) -> None:
        """Deltas until the stream ends; each must come within the stall limit, the first within more."""
        job = claim.view
        patience = self._limits.job_stall.total_seconds()
        allowance = first_token_within(self._limits.job_stall, cost=claim.cost)
        salt = self._salts.of(job.tenant_id, is_private=claim.is_private)
        prompt = to_prompt(claim, chat=self._chat, salt=salt)
        waiting = Patience(allowance, patience)
        try:
            async with aclosing(self._engine.generate(prompt)) as deltas, waiting:
                async for delta in deltas:
                    self._take(job, answer, delta)
                    waiting.heard(begun=answer.deltas > 0)
        except TimeoutError as error:
            raise GenerationStalled(f"no token within {waiting.limit:.0f} s") from error
        if answer.finish_reason == "abort":
            raise EngineUnavailable("the engine aborted the request")

    def _take(self, job: JobView, answer: Answer, delta: Delta) -> None:
        if delta.text or delta.reasoning:
            self._events.token(
                job.id,
                attempt=job.attempt,
                index=answer.deltas,
                text=delta.text,
                reasoning=delta.reasoning,
                count=delta.pieces,
            )
        answer.add(delta)

    def stopped(self, claim: Claim, why: Stop, answer: Answer | None = None) -> Outcome:
        """What becomes of a job that was taken from the engine, or never reached it."""
        answer = answer or Answer()
        match why:
            case Stop.CANCELLED:
                return self._ending(claim, Status.CANCELLED, answer)
            case Stop.LOST:
                return Discard("lease_lost")
            case Stop.DRAINED:
                return GiveBack(why.value, excused=True)
            case Stop.STALLED:
                return self._again(claim, answer, GenerationStalled("the engine made no progress"))

    def _failed(self, claim: Claim, answer: Answer, error: PenstockError) -> Outcome:
        if isinstance(error, EngineFailure) and error.retryable:
            return self._again(claim, answer, error)
        status = {"code": error.code, "message": str(error)}
        if isinstance(error, PromptTooLong):
            status["field"] = error.field
        return self._ending(claim, Status.FAILED, answer, error=status)

    def _again(self, claim: Claim, answer: Answer, error: EngineFailure) -> Outcome:
        job = claim.view
        if isinstance(error, EngineUnreachable):
            return GiveBack(error.code, excused=True)
        if attempts_left(attempt=job.attempt, excused=job.excused, limit=self._limits.max_attempts):
            return GiveBack(error.code, excused=False, struck=True)
        exhausted = {
            "code": dead_letters.CODE,
            "message": f"{self._limits.max_attempts} attempts failed, the last one so: {error}",
        }
        return self._ending(claim, Status.FAILED, answer, error=exhausted)

    def _ending(
        self,
        claim: Claim,
        status: Status,
        answer: Answer,
        *,
        output: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
    ) -> Ending:
        return Ending(
            job_id=claim.view.id,
            attempt=claim.view.attempt,
            status=status,
            expires_at=datetime.now(UTC) + (claim.result_ttl or self._limits.retention),
            output=output,
            usage=_usage(answer.usage),
            timings=answer.timings(claim),
            error=error,
            degradation=claim.view.degradation,
        )


def first_token_within(job_stall: timedelta, *, cost: int) -> float:
    """Seconds until a job of so many tokens counts as hung: a long prompt is read for a while."""
    return job_stall.total_seconds() * (1 + cost / _TOKENS_PER_STALL)


def _add_call(calls: dict[int, dict[str, Any]], piece: dict[str, Any]) -> None:
    """A call comes as its id and name, and then its arguments bit by bit."""
    new = {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    call, function = calls.setdefault(piece.get("index") or 0, new), piece.get("function") or {}
    call["id"] = piece.get("id") or call["id"]
    call["function"]["name"] = function.get("name") or call["function"]["name"]
    call["function"]["arguments"] += function.get("arguments") or ""


def _usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def _until(deadline: datetime | None) -> float | None:
    """Seconds from now, as `asyncio.timeout` takes them; None waits for ever."""
    return None if deadline is None else max(0.0, (deadline - datetime.now(UTC)).total_seconds())


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
