"""Finished jobs kept hot in Redis for those who poll, and the measured rates; nothing while Redis is down."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Final, TypeVar

import orjson
from redis.asyncio import Redis

from core.errors import EventsUnavailable
from core.logs import get_logger
from models.group_commit import GroupCommit
from models.views import JobView
from queues.events import EventNames
from queues.redis import REDIS_DOWN

logger = get_logger(__name__)

Found = TypeVar("Found")

_REST: Final = 1.0  # seconds without a question after one failed, so that an outage costs one timeout
# Copies may be large, and one slow look must not be everybody's.
TOGETHER: Final = 100  # jobs
LANES: Final = 4
_RATES_FRESH: Final = 2.0  # seconds


class HotJobs:
    """Questions that come together are one: ten thousand long polls look again at the same moment."""

    def __init__(self, redis: Redis, *, namespace: str, result_ttl: timedelta) -> None:
        self._redis = redis
        self._names = EventNames(namespace)
        self._ttl = result_ttl
        self._rest_until = 0.0
        self._rates: dict[str, float] = {}
        self._rates_until = 0.0
        self._refresh: asyncio.Task[dict[str, float]] | None = None
        self._copies: GroupCommit[str, bytes | str | None] = GroupCommit(
            self._copies_of, limit=TOGETHER, lanes=LANES
        )

    async def get(self, job_id: str) -> JobView | None:
        """The finished job, whoever's it is: the caller compares the tenant."""
        document = await self._ask(lambda: self._copies.submit(job_id))
        return JobView.from_json(document) if isinstance(document, bytes) else None

    async def _copies_of(self, job_ids: Sequence[str]) -> list[bytes | str | None]:
        return await self._redis.mget([self._names.result(job_id) for job_id in job_ids])

    async def bury(self, tombstone: JobView) -> None:
        """Replaces the copy and forgets the events of an erased job. Raises `EventsUnavailable`."""
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.set(self._names.result(tombstone.id), tombstone.to_json(), px=self._ttl)
                pipeline.delete(self._names.stream(tombstone.id))
                await pipeline.execute()
        except REDIS_DOWN as error:
            raise EventsUnavailable("the copy in Redis cannot be erased now; delete the job again") from error

    def last_total_rate(self) -> float | None:
        """As far as known now; looks for a newer one in the background."""
        if time.monotonic() >= self._rates_until and (self._refresh is None or self._refresh.done()):
            self._refresh = asyncio.create_task(self.rates())
        return sum(self._rates.values()) or None

    async def rates(self) -> dict[str, float]:
        """Jobs per second that were finished lately, by `model/class`; what was not measured is missing."""
        if time.monotonic() >= self._rates_until:
            self._rates_until = time.monotonic() + _RATES_FRESH
            document = await self._ask(lambda: self._redis.get(self._names.rates))
            self._rates = _positive(orjson.loads(document)) if document else {}
        return self._rates

    async def _ask(self, question: Callable[[], Awaitable[Found]]) -> Found | None:
        if time.monotonic() < self._rest_until:
            return None
        try:
            return await question()
        except REDIS_DOWN as error:
            self._rest_until = time.monotonic() + _REST
            logger.debug("hot_copies_unavailable", reason=type(error).__name__)
            return None


def _positive(document: object) -> dict[str, float]:
    """Another process wrote it, perhaps of another version: take what is understood."""
    if not isinstance(document, dict):
        return {}
    return {
        name: float(rate) for name, rate in document.items() if isinstance(rate, int | float) and rate > 0
    }
