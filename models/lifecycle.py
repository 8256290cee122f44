"""The status of a job and every legal change of it. Pure."""

from enum import StrEnum
from typing import Final


class Status(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


TERMINAL: Final = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED, Status.EXPIRED})
LIVE: Final = frozenset(Status) - TERMINAL

MOVES: Final[dict[Status, frozenset[Status]]] = {
    # Completed without a GPU: an answer from a cache or a template.
    Status.QUEUED: frozenset(
        {Status.RUNNING, Status.COMPLETED, Status.CANCELLED, Status.EXPIRED, Status.FAILED}
    ),
    # A worker that dies gives its job back, so RUNNING may return to QUEUED.
    Status.RUNNING: frozenset(
        {Status.QUEUED, Status.CANCELLING, Status.COMPLETED, Status.FAILED, Status.EXPIRED}
    ),
    # The first commit wins: an answer that was finished before the cancel arrived stands.
    Status.CANCELLING: frozenset({Status.CANCELLED, Status.COMPLETED, Status.FAILED}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
    Status.EXPIRED: frozenset(),
}


def can_move(current: Status, to: Status) -> bool:
    return to in MOVES[current]


def sources(to: Status) -> tuple[Status, ...]:
    """Every status from which `to` may be reached: the guard of an UPDATE."""
    return tuple(status for status in Status if to in MOVES[status])


def attempts_left(*, attempt: int, excused: int, limit: int) -> int:
    """Attempts a job still has.

    `attempt` counts claims and is the fencing token; a claim that a draining worker handed back is excused.
    """
    return max(0, limit - (attempt - excused))
