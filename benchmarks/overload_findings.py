"""What became of each submission, and what that says: shares, waits, and promises that were broken. Pure."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from benchmarks.measure import quantile
from benchmarks.overload_trace import Ask

JUDGED: Final = ("premium", "standard")
LEVELS: Final = ("full", "truncate", "template", "similar", "fallback", "backup")
_AT_ONCE: Final = 200  # the answer came with the submission
_LONG_WAIT: Final = 1.0  # seconds: of a shorter wait a fifth is less than the clock of a busy machine tells


@dataclass(frozen=True, slots=True)
class Sent:
    """What the caller saw at once: `took` seconds for the answer, the job where one was accepted.

    `moment` is the wall clock at which it left. A status of 0 is a connection that broke.
    """

    ask: Ask
    moment: float
    took: float
    status: int
    job_id: str | None = None
    level_header: str | None = None
    retry_after: str | None = None
    code: str | None = None
    promised: datetime | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A submission and its job as it was found at the end, None where none was accepted."""

    sent: Sent
    job: dict[str, Any] | None

    @property
    def is_answered(self) -> bool:
        return self.job is not None and self.job["status"] == "completed"

    @property
    def level(self) -> str:
        return str(self.job["degradation"]["name"]) if self.job else "none"

    def seconds(self, until: float) -> float:
        """From the first byte that was sent to the answer; what has none counts as far as `until`."""
        if self.job is None or not self.is_answered:
            return until - self.sent.moment
        if self.sent.status == _AT_ONCE:
            return self.sent.took
        return max(self.sent.took, _moment(self.job["finished_at"]) - self.sent.moment)

    @property
    def queue_seconds(self) -> float:
        timings = (self.job or {}).get("timings") or {}
        return float(timings.get("queue_ms", 0.0)) / 1000


@dataclass(frozen=True, slots=True)
class Phase:
    """One minute of the trace; `until` is when it was looked at."""

    name: str
    found: Sequence[Found]
    until: float

    def of(self, *classes: str) -> list[Found]:
        return [one for one in self.found if one.sent.ask.service_class in classes]

    @property
    def answered_share(self) -> float:
        judged = self.of(*JUDGED)
        return sum(one.is_answered for one in judged) / len(judged)

    def latencies(self, *classes: str) -> list[float]:
        return [one.seconds(self.until) for one in self.of(*classes)]

    def premium_wait(self, percent: float, *, queued: bool = False) -> float:
        """Of those that were answered or still wait; what waits still has waited until now.

        `queued`: without those that were answered at once.
        """
        waits = [
            one.queue_seconds if one.is_answered else self.until - one.sent.moment
            for one in self.of("premium")
            if one.job is not None and not (queued and one.sent.status == _AT_ONCE)
        ]
        return quantile(waits, percent) if waits else 0.0

    def shares(self) -> dict[str, float]:
        judged = [one for one in self.of(*JUDGED) if one.is_answered]
        counts = Counter(one.level for one in judged)
        return {name: counts[name] / max(1, len(judged)) for name in LEVELS if counts[name]}

    @property
    def length_share(self) -> float:
        """Of the long answers that were to be whole: the part that is as long as was asked."""
        long = [
            (one.job or {})["output"]["finish_reason"] == "length"
            for one in self.found
            if one.job is not None
            and one.is_answered
            and one.level == "full"
            and one.sent.ask.kind != "repeat"
        ]
        return sum(long) / max(1, len(long))

    def count(self, broken: Callable[[Found], bool]) -> int:
        return sum(broken(one) for one in self.found)

    def start_error(self, *, after: float) -> float | None:
        """Median distance of predicted and actual start, by the actual wait, of long waits begun later."""
        errors = sorted(
            abs(one.sent.promised.timestamp() - _moment(one.job["started_at"])) / one.queue_seconds
            for one in self.found
            if one.job is not None
            and one.sent.promised is not None
            and one.job["started_at"] is not None
            and one.sent.moment >= after
            and one.queue_seconds >= _LONG_WAIT
        )
        return errors[len(errors) // 2] if errors else None


def is_unlabelled(one: Found) -> bool:
    """Less than what was asked, and the answer does not say so, or not why, or its header says otherwise."""
    if one.job is None or not one.is_answered:
        return False
    label, usage, output = one.job["degradation"], one.job["usage"], one.job["output"]
    is_less = usage["total_tokens"] == 0 or (
        output["finish_reason"] == "length" and usage["completion_tokens"] < one.sent.ask.max_tokens
    )
    if one.sent.status == 200 and one.sent.level_header != str(label["level"]):
        return True
    if label["level"] == 0:
        return is_less and label["name"] == "full" and label["source_job_id"] is None
    return not label["reason"] or (label["name"] == "similar" and not label["source_job_id"])


def is_imposed(one: Found) -> bool:
    """A level that its caller had refused."""
    if one.job is None or one.job["degradation"]["level"] == 0:
        return False
    return one.sent.ask.refuses(one.level)


def is_without_retry_after(one: Found) -> bool:
    return one.sent.status == 429 and not (one.sent.retry_after or "").isdigit()


def is_fault(one: Found) -> bool:
    """Neither an answer nor an honest refusal."""
    return one.sent.status not in {200, 202, 429}


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
