"""A broker in memory that counts, confirms and refuses as the real publishers do, on command."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from core.errors import BrokerUnavailable
from queues.messages import CLASSES, JobEnvelope, task_id
from queues.publisher import DeadMessage


class FakePublisher:
    """`published` holds every confirmed message; at most `room` of a queue; nothing while `is_down`.

    `calls` counts the publishes, and in vain the attempts to reach it.
    """

    def __init__(self, models: Sequence[str], *, room: int = 1_000_000) -> None:
        self.published: list[JobEnvelope] = []
        self.ready: Counter[tuple[str, str]] = Counter()
        self.room = room
        self.is_down = False
        self.graveyard: list[DeadMessage] = []
        self.calls = 0
        self._models = tuple(models)
        self._changed = asyncio.Condition()

    async def reach(self) -> None:
        if self.is_down:
            async with self._changed:
                self.calls += 1
                self._changed.notify_all()
            raise BrokerUnavailable("the fake broker is down")

    async def publish(self, envelopes: Sequence[JobEnvelope]) -> set[str]:
        async with self._changed:
            self.calls += bool(envelopes)
            self._changed.notify_all()
            if self.is_down:
                raise BrokerUnavailable("the fake broker is down")
            taken = [envelope for envelope in envelopes if self._takes(envelope)]
            self.published += taken
            return {task_id(envelope) for envelope in taken}

    def _takes(self, envelope: JobEnvelope) -> bool:
        queue = (envelope.model, envelope.service_class)
        if envelope.model not in self._models or self.ready[queue] >= self.room:
            return False
        self.ready[queue] += 1
        return True

    async def depths(self, models: Sequence[str]) -> dict[tuple[str, str], int]:
        if self.is_down:
            raise BrokerUnavailable("the fake broker is down")
        return {(model, name): self.ready[model, name] for model in models for name in CLASSES}

    async def dead(self, limit: int) -> list[DeadMessage]:
        return self.graveyard[:limit]

    async def bury(self, messages: Sequence[DeadMessage]) -> None:
        self.graveyard = [message for message in self.graveyard if message not in messages]

    async def close(self) -> None:
        return

    @property
    def ids(self) -> list[str]:
        return [envelope.id for envelope in self.published]

    def lose_everything(self) -> None:
        """What a broker without its disk does."""
        self.ready.clear()

    async def until_called(self, times: int, within: timedelta = timedelta(seconds=10)) -> None:
        """Raises `TimeoutError`."""
        async with asyncio.timeout(within.total_seconds()), self._changed:
            await self._changed.wait_for(lambda: self.calls >= times)
