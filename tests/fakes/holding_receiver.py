"""A receiver that begins as many jobs as it has slots and ends one when the test says so."""

import asyncio
import threading
from collections.abc import Collection, Sequence
from datetime import timedelta
from queue import SimpleQueue
from typing import Any

from workers.deliveries import Delivery


class HoldingReceiver:
    def __init__(self, slots: int, failure: Exception | None = None) -> None:
        self.taken: SimpleQueue[Delivery] = SimpleQueue()
        self.begun: SimpleQueue[Delivery] = SimpleQueue()
        self.cancelled: SimpleQueue[str] = SimpleQueue()
        self.forgotten: SimpleQueue[str] = SimpleQueue()
        self.is_draining = threading.Event()
        self.is_closed = False
        self._slots = slots
        self._failure = failure
        self._waiting: dict[str, Delivery] = {}
        self._running: dict[str, Delivery] = {}

    async def start(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def take(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            self._waiting[delivery.task_id] = delivery
            self.taken.put(delivery)
        self._refill()

    def cancel(self, task_id: str) -> None:
        delivery = self._running.pop(task_id, None) or self._waiting.pop(task_id)
        delivery.revoked()
        self.cancelled.put(task_id)
        self._refill()

    def forget(self, task_ids: Collection[str]) -> Collection[str]:
        dropped = [task_id for task_id in task_ids if self._waiting.pop(task_id, None)]
        for task_id in dropped:
            self.forgotten.put(task_id)
        return dropped

    async def drain(self, grace: timedelta) -> None:
        self._slots = 0
        self.is_draining.set()
        for delivery in self._waiting.values():
            delivery.requeue()
        self._waiting.clear()
        try:
            async with asyncio.timeout(grace.total_seconds()):
                while self._running:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            for delivery in self._running.values():
                delivery.requeue()

    async def close(self) -> None:
        self.is_closed = True

    def info(self) -> dict[str, Any]:
        return {"slots": self._slots}

    def finish(self, delivery: Delivery) -> None:
        """From the test's thread."""
        self._loop.call_soon_threadsafe(self._finish, delivery)

    def fail(self, delivery: Delivery) -> None:
        self._loop.call_soon_threadsafe(self._finish, delivery, RuntimeError("no answer"))

    def _finish(self, delivery: Delivery, error: Exception | None = None) -> None:
        del self._running[delivery.task_id]
        if error is None:
            delivery.succeeded("answered")
        else:
            delivery.failed(error)
        self._changed.set()
        self._refill()

    def _refill(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            delivery = self._waiting.pop(next(iter(self._waiting)))
            self._running[delivery.task_id] = delivery
            delivery.started()
            self.begun.put(delivery)
