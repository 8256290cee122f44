"""What an event of a job is, and every name in Redis that belongs to events."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

START: Final = "0-0"
_LARGEST: Final = 2**64 - 1


class EventKind(StrEnum):
    STATUS = "status"
    TOKEN = "token"  # noqa: S105 - a piece of an answer
    RESET = "reset"
    DEGRADED = "degraded"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Event:
    """`id` is the place in the job's stream, from which a reader can go on."""

    id: str
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class EventNames:
    """Keys and channels of one namespace."""

    namespace: str

    def stream(self, job_id: str) -> str:
        return f"{self.namespace}:events:{job_id}"

    def result(self, job_id: str) -> str:
        return f"{self.namespace}:result:{job_id}"

    def poke(self, job_id: str) -> str:
        return f"{self.namespace}:poke:{job_id}"

    @property
    def cancel(self) -> str:
        return f"{self.namespace}:cancel"

    @property
    def rates(self) -> str:
        return f"{self.namespace}:rates"

    @property
    def idle(self) -> str:
        """A channel without messages, which keeps a reader subscribed while it follows no job."""
        return f"{self.namespace}:idle"


POKE_MORE: Final = "more"
POKE_DONE: Final = "done"


def encode(data: dict[str, Any]) -> str:
    """Raises `TypeError` for what is no text."""
    return orjson.dumps(data).decode()


def decode(entry: tuple[bytes, dict[bytes, bytes]]) -> Event:
    identity, fields = entry
    return Event(identity.decode(), fields[b"kind"].decode(), orjson.loads(fields[b"data"]))


def place(event_id: str | None) -> str:
    """A place in a stream that Redis accepts; what is not one means the start."""
    parts = (event_id or "").split("-")
    if len(parts) == 2 and all(p.isascii() and p.isdigit() and len(p) <= 20 for p in parts):  # noqa: PLR2004
        time, sequence = int(parts[0]), int(parts[1])
        if time <= _LARGEST and sequence <= _LARGEST:
            return f"{time}-{sequence}"
    return START


def order(event_id: str) -> tuple[int, int]:
    time, sequence = event_id.split("-")
    return int(time), int(sequence)
