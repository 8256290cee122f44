"""What is to be done for a batch next, and how it ends. Pure."""

from datetime import datetime
from enum import StrEnum
from typing import Final

from models.repositories.batches import BatchRow


class Step(StrEnum):
    CHECK = "check"  # its file
    LOAD = "load"  # its lines into the queue
    STOP = "stop"  # what has not ended, for it was cancelled or its window is over
    FINISH = "finish"  # write its files
    WAIT = "wait"


_NEVER_LOADED: Final = "validating"


def next_step(batch: BatchRow, now: datetime) -> Step:
    is_late = now >= batch.expires_at
    has_ended = batch.ended >= batch.loaded
    match batch.status:
        case "finalizing":
            return Step.FINISH
        case "cancelling":
            return Step.FINISH if has_ended else Step.STOP
        case "validating":
            return Step.FINISH if is_late else Step.CHECK
        case _ if is_late:
            return Step.FINISH if has_ended else Step.STOP
        case _ if batch.loaded < batch.total:
            return Step.LOAD
        case _:
            return Step.FINISH if has_ended else Step.WAIT


def final_status(batch: BatchRow, *, expired: int) -> str:
    """`expired` lines did not end within the window, those that were never loaded among them."""
    if batch.cancelling_at is not None:
        return "cancelled"
    return "expired" if expired or batch.status == _NEVER_LOADED else "completed"
