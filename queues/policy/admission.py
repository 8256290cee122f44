"""Whether a job may enter, at which level, and what to tell those that may not. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from core.errors import DeadlineUnreachable, QueueFull, QueueTimeout
from core.overload_settings import InteractiveSettings, OverloadSettings
from models.degradation import Degradation, Level, Terms
from models.service_class import ServiceClass
from queues.policy.forecast import seconds_until
from queues.policy.pressure import Reading
from queues.policy.state import Verdict

LONGEST_RETRY: Final = 120.0  # seconds
_BETWEEN_READINGS: Final = 1.0  # seconds, from the count to the next one that a process knows of
_STRICT: Final = {ServiceClass.PREMIUM: timedelta(milliseconds=50)}
_STRICT_OTHERS: Final = timedelta(milliseconds=200)


def interactive_limit(settings: InteractiveSettings, service_class: str) -> timedelta:
    """The longest queue wait of a call that waits for its answer."""
    if settings.preset == "strict":
        return _STRICT.get(ServiceClass(service_class), _STRICT_OTHERS)
    limit: timedelta = getattr(settings, service_class)
    return limit


@dataclass(frozen=True, slots=True)
class Demand:
    """What admission must know of a job. Costs are tokens; `ahead` is what came since the last reading."""

    service_class: str
    now: datetime
    queue_deadline: datetime | None = None
    deadline: datetime | None = None
    ahead: int = 0


def predicted_wait(verdict: Verdict | None, demand: Demand) -> float | None:
    """Seconds until a job that came now would start. None: unknown."""
    reading = verdict.pressure.classes.get(demand.service_class) if verdict is not None else None
    if verdict is None or reading is None:
        return None
    waiting = max(0.0, reading.tokens - _started_since(verdict, reading, demand.now))
    return starts_in(verdict, service_class=demand.service_class, ahead=round(waiting) + demand.ahead)


def starts_in(verdict: Verdict | None, *, service_class: str, ahead: int) -> float | None:
    """Seconds until so many tokens of a class have started, at the measured rate. None: unknown.

    Whoever tells a caller or decides when a job starts, asks this.
    """
    if verdict is None:
        return None
    return seconds_until(ahead, of=service_class, classes=verdict.pressure.classes)


def _started_since(verdict: Verdict, reading: Reading, now: datetime) -> float:
    """Tokens that left the queue since it was counted. What is stale says nothing of what happened since."""
    if verdict.pressure.is_stale or not reading.rate:
        return 0.0
    age = min(_BETWEEN_READINGS, max(0.0, now.timestamp() - verdict.pressure.at))
    return reading.rate * age


def refuse(verdict: Verdict | None, demand: Demand) -> QueueFull | None:
    """The error for a job that would wait in vain, or whose class gets no new work; None admits it."""
    wait = predicted_wait(verdict, demand)
    if verdict is not None and demand.service_class in verdict.state.shed:
        error = QueueFull(f"The engines are full, and {demand.service_class} jobs are turned away first.")
        error.retry_after = min(LONGEST_RETRY, wait or 10.0)
        return error
    if wait is None:
        return None
    start = demand.now + timedelta(seconds=wait)
    if demand.deadline is not None and start >= demand.deadline:
        return _too_late(
            DeadlineUnreachable(f"The job would start in {wait:.1f} s, after its deadline."),
            start - demand.deadline,
        )
    if demand.queue_deadline is not None and start > demand.queue_deadline:
        allowed = (demand.queue_deadline - demand.now).total_seconds()
        return _too_late(
            QueueTimeout(f"The job would start in {wait:.1f} s; it may wait {allowed:.3g} s."),
            start - demand.queue_deadline,
        )
    return None


def _too_late(error: QueueFull, excess: timedelta) -> QueueFull:
    """The queue drains a second a second, so it is short enough when the excess is gone."""
    error.retry_after = min(LONGEST_RETRY, max(1.0, excess.total_seconds()))
    return error


def truncate(
    verdict: Verdict | None,
    terms: Terms,
    *,
    service_class: str,
    asked: int,
    thinks: bool,
    policy: OverloadSettings,
) -> Degradation | None:
    """The label and limit of an answer cut short; None where nothing is cut or its caller refuses."""
    if not policy.enabled or verdict is None or verdict.state.level < Level.TRUNCATE:
        return None
    limit: int = getattr(policy.truncate, service_class)
    if not terms.allows(Level.TRUNCATE) or (asked <= limit and not thinks):
        return None
    return Degradation(
        Level.TRUNCATE, Level.TRUNCATE.label, verdict.state.reason, max_tokens=min(asked, limit)
    )
