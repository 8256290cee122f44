"""Messages in this worker's hands: what a receiver may do with one, and how the broker learns of it.

Two threads meet here. The *loop thread* runs the receiver and decides; the *hub thread* owns the broker's
connection and Celery's state. A decision becomes an effect in the outbox, and effects run in their order.
"""

# kombu says that it is typed and is not.
# mypy: disable-error-code="no-untyped-call"

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, Protocol

import structlog
from celery.worker import state
from kombu.utils.encoding import safe_repr
from typing_extensions import TypeVar

from queues.messages import JobEnvelope

log = structlog.get_logger(__name__)


class Receiver(Protocol):
    """Runs jobs. Every method but `info` is called on the pool's loop."""

    async def start(self) -> None:
        """Start the engines; returns when a job could run. Raising stops the worker."""

    def take(self, deliveries: Sequence["Delivery[Any]"]) -> None:
        """These are yours until you settle each of them."""

    def cancel(self, task_id: str) -> None:
        """Someone revoked it with terminate; settle it with `revoked`, soon."""

    def forget(self, task_ids: Collection[str]) -> Collection[str]:
        """The connection is lost and the broker will deliver these again, perhaps elsewhere.

        Drop those not begun, without settling them, and return their ids. What is being claimed may stay.
        """

    async def drain(self, grace: timedelta) -> None:
        """Begin nothing more, finish within `grace`, give the rest back with `requeue`."""

    async def close(self) -> None: ...

    def info(self) -> dict[str, Any]:
        """For `inspect stats`, as JSON has it; quick, and callable from any thread."""


class Outbox:
    """Effects decided on the loop thread and run, in order, on the hub thread."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._effects: deque[tuple[Callable[..., object], tuple[object, ...]]] = deque()
        self._wake = wake
        self._woken = False
        self.filled = threading.Event()

    def put(self, effect: Callable[..., object], *arguments: object) -> None:
        self._effects.append((effect, arguments))
        self.filled.set()
        if not self._woken:  # One wake-up for a whole burst.
            self._woken = True
            self._wake()

    def run(self) -> None:
        self._woken = False
        self.filled.clear()
        while self._effects:
            effect, arguments = self._effects.popleft()
            try:
                effect(*arguments)
            except Exception:
                # One job's broken bookkeeping must not stop the worker's event loop.
                log.exception("delivery_effect_failed")

    def __bool__(self) -> bool:
        return bool(self._effects)


@dataclass(frozen=True, slots=True)
class Tag:
    """Celery's request and the connection, by number, that it came over."""

    request: Any
    epoch: int


_pids: Final = itertools.count(1)

# What the message says; where a delivery is not said to be of something else, it is of a job.
E = TypeVar("E", default=JobEnvelope)


class Delivery(Generic[E]):
    """One message in this worker's hands: settle it exactly once; later settlements change nothing.

    Called on the loop thread. `pid` stands for the job where Celery expects a process.
    """

    __slots__ = (
        "__weakref__",
        "_hand",
        "_settled",
        "_tag",
        "begun",
        "envelope",
        "epoch",
        "pid",
        "redelivered",
        "task_id",
    )

    def __init__(self, envelope: E, tag: Tag, hand: "Hand") -> None:
        self.task_id: str = tag.request.id
        self.envelope = envelope
        self.redelivered = bool(tag.request.delivery_info.get("redelivered"))
        self.pid = next(_pids)
        self.begun: float | None = None
        self.epoch = tag.epoch
        self._hand = hand
        self._settled = False
        self._tag = tag

    @property
    def is_revoked(self) -> bool:
        """Revoked without terminate while it waited here."""
        return self.task_id in state.revoked

    def started(self) -> None:
        if self.begun is None and not self._settled:
            self.begun = time.monotonic()
            self._hand.outbox.put(self._accept)

    def succeeded(self, result: str) -> None:
        self._settle(self._close, "task-succeeded", {"result": result, "runtime": self._runtime()})

    def failed(self, error: Exception) -> None:
        self._settle(self._close, "task-failed", {"exception": safe_repr(error), "traceback": ""})

    def dropped(self, reason: str) -> None:
        """Nothing to run: cancelled, expired, a duplicate or an old generation."""
        self.succeeded(reason)

    def revoked(self) -> None:
        fields = {"terminated": self.begun is not None, "signum": None, "expired": False}
        self._settle(self._close, "task-revoked", fields)

    def requeue(self) -> None:
        """Back to the broker, for another worker."""
        self._settle(self._give_back)

    def adopt(self, copy: "Delivery[E]") -> None:
        """The broker delivered this job again: go on, and settle the copy's message instead."""
        self.redelivered = True
        self.epoch = copy.epoch
        self._hand.outbox.put(self._swap, copy)

    def terminate(self, _signal: object = None) -> None:
        """Celery's hook for `revoke(terminate=True)`, on the hub thread."""
        self._hand.terminate(self.pid)

    def _runtime(self) -> float:
        return 0.0 if self.begun is None else time.monotonic() - self.begun

    def _settle(self, effect: Callable[..., None], *arguments: object) -> None:
        if not self._settled:
            self._settled = True
            self._hand.release(self)
            self._hand.outbox.put(effect, *arguments)

    # Effects: on the hub thread.

    def _accept(self) -> None:
        request = self._tag.request
        if request.time_start is None and not request.acknowledged:
            request.on_accepted(self.pid, self.begun)

    def _close(self, event: str, fields: dict[str, Any]) -> None:
        request = self._tag.request
        if request.acknowledged:  # by Celery, when it announced a revoke
            return
        state.task_ready(request, successful=event == "task-succeeded")
        if self._is_current:
            request.acknowledge()
        request.send_event(event, **fields)

    def _give_back(self) -> None:
        request = self._tag.request
        state.task_ready(request)
        if self._is_current:
            request.reject(requeue=True)

    def _swap(self, copy: "Delivery[E]") -> None:
        old, was_current = self._tag.request, self._is_current
        self._tag = copy._tag  # noqa: SLF001
        state.task_ready(old)
        if was_current:  # Published twice, not redelivered: two messages, one job.
            old.acknowledge()
        state.task_reserved(self._tag.request)
        if self.begun is not None:
            self._accept()

    @property
    def _is_current(self) -> bool:
        """A lost connection's delivery tags mean nothing on the next one."""
        return self._tag.epoch == self._hand.epoch


class Hand:
    """The deliveries held, by task id: on the loop thread. `epoch` counts connections: on the hub thread."""

    def __init__(self, outbox: Outbox, terminate: Callable[[int], None]) -> None:
        self.outbox = outbox
        self.terminate = terminate
        self.epoch = 0
        self._held: dict[str, Delivery[Any]] = {}

    def take(self, arrived: Iterable[Delivery[Any]]) -> list[Delivery[Any]]:
        """Those that are new here; a second copy of a held one is adopted by it."""
        fresh = []
        for delivery in arrived:
            held = self._held.get(delivery.task_id)
            if held is None:
                self._held[delivery.task_id] = delivery
                fresh.append(delivery)
            else:
                held.adopt(delivery)
        return fresh

    def waiting_from_before(self, epoch: int) -> list[str]:
        return [held.task_id for held in self if held.begun is None and held.epoch < epoch]

    def find(self, pid: int) -> str | None:
        return next((held.task_id for held in self if held.pid == pid), None)

    def release(self, delivery: Delivery[Any]) -> None:
        if self._held.get(delivery.task_id) is delivery:
            del self._held[delivery.task_id]

    def drop(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            self._held.pop(task_id, None)

    def __iter__(self) -> Iterator[Delivery[Any]]:
        return iter(list(self._held.values()))

    def __len__(self) -> int:
        return len(self._held)
