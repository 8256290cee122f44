"""What a desk counts: once for each group it claims and each job it ends, never for a token."""

from collections.abc import Sequence
from typing import Any, Final

from core import metrics
from models.degradation import Level, level_of
from models.lifecycle import Status
from models.repositories.execution import Claim, Ending
from models.views import JobView

_LONG_WAIT: Final = 1.0  # seconds


class DeskMeter:
    """One model's metrics; children are looked up once for each class and status."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.finished = self.prompt = self.cached = self.written = 0  # jobs and tokens since the start
        self._ends: dict[tuple[str, Status], EndMeter] = {}
        self._group = metrics.DISPATCH_GROUP.labels(model)
        self._claim_seconds = metrics.CLAIM_SECONDS.labels(model)
        self._not_claimed = metrics.NOT_CLAIMED.labels(model)
        # There from the start: what begins at 1 never rose, to Prometheus.
        for rare in (metrics.STALE_FINISHES, metrics.ENGINE_STALLS, metrics.LEASES_LOST):
            rare.labels(model)

    def claimed(self, claims: Sequence[Claim], *, asked: int, seconds: float) -> None:
        self._claim_seconds.observe(seconds)
        if claims:
            self._group.observe(len(claims))
        for claim in claims:
            self._judge_estimate(claim.view)
        if asked > len(claims):
            self._not_claimed.inc(asked - len(claims))

    def _judge_estimate(self, job: JobView) -> None:
        """Of a short wait, a fifth is less than the time of one reading."""
        if job.estimated_start_at is None or job.started_at is None or job.attempt > 1:
            return
        waited = (job.started_at - job.created_at).total_seconds()
        if waited >= _LONG_WAIT:
            error = abs((job.started_at - job.estimated_start_at).total_seconds())
            metrics.START_ERROR.labels(self.model, job.service_class).observe(error / waited)

    def ended(self, job: JobView, ending: Ending) -> None:
        """The ending was recorded as this attempt's."""
        key = job.service_class, ending.status
        meter = self._ends.get(key)
        if meter is None:
            meter = self._ends[key] = EndMeter(self.model, job.service_class, ending.status)
        meter.count(job, ending)
        self._add(ending)
        if ending.status is Status.COMPLETED:
            level = Level(level_of(ending.degradation)).label
            metrics.ANSWERS.labels(self.model, level).inc()
        if ending.status is Status.FAILED:
            code = str((ending.error or {}).get("code"))
            metrics.FAILURES.labels(self.model, code).inc()

    def given_back(self, reason: str) -> None:
        metrics.GIVEN_BACK.labels(self.model, reason).inc()

    def fenced(self) -> None:
        metrics.STALE_FINISHES.labels(self.model).inc()

    def stalled(self) -> None:
        metrics.ENGINE_STALLS.labels(self.model).inc()

    def lost(self) -> None:
        metrics.LEASES_LOST.labels(self.model).inc()

    def _add(self, ending: Ending) -> None:
        self.finished += 1
        if usage := ending.usage:
            self.prompt += usage["prompt_tokens"]
            self.cached += cached_tokens(usage)
            self.written += usage["completion_tokens"]


class EndMeter:
    """Jobs of one model and class that ended in one status."""

    def __init__(self, model: str, service_class: str, status: Status) -> None:
        kind = model, service_class
        self._is_completed = status is Status.COMPLETED
        self._finished = metrics.FINISHED.labels(*kind, status.value)
        self._prompt = metrics.PROMPT_TOKENS.labels(model)
        self._cached = metrics.CACHED_TOKENS.labels(model)
        self._written = metrics.COMPLETION_TOKENS.labels(model)
        self._queue = metrics.QUEUE_SECONDS.labels(*kind)
        self._first_token = metrics.FIRST_TOKEN_SECONDS.labels(*kind)
        self._wait = metrics.WAIT_TO_TOKEN_SECONDS.labels(*kind)
        self._token = metrics.TOKEN_SECONDS.labels(*kind)
        self._response = metrics.RESPONSE_SECONDS.labels(*kind)

    def count(self, job: JobView, ending: Ending) -> None:
        self._finished.inc()
        usage = ending.usage or {}
        written = usage.get("completion_tokens", 0)
        if usage:
            self._prompt.inc(usage["prompt_tokens"])
            self._cached.inc(cached_tokens(usage))
            self._written.inc(written)
        self._time(ending.timings or {}, written)
        if self._is_completed and job.finished_at is not None:
            self._response.observe((job.finished_at - job.created_at).total_seconds())

    def _time(self, timings: dict[str, float], written: int) -> None:
        queue, run, first = (timings.get(name) for name in ("queue_ms", "run_ms", "first_token_ms"))
        if queue is None:
            return
        self._queue.observe(queue / 1000)
        if first is None or run is None:
            return
        self._first_token.observe(first / 1000)
        self._wait.observe((queue + first) / 1000)
        if written > 1:
            self._token.observe((run - first) / 1000 / (written - 1))


def cached_tokens(usage: dict[str, Any]) -> int:
    return int((usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0))
