"""Recent answers in Redis, by tenant: one key per question, bounded, expiring, and found again by job."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import orjson

from core.errors import EventsUnavailable
from core.logs import get_logger
from core.settings import AnswerSettings
from queues.redis import REDIS_DOWN, Redis

logger = get_logger(__name__)

Found = TypeVar("Found")

_REST: Final = 1.0  # seconds without a question after one failed: an outage costs one timeout
_LARGEST: Final = 65_536  # bytes; a longer answer is not kept


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer of full quality, and the job that it was made for; `vector` is its question's, packed."""

    job_id: str
    tenant_id: str
    output: dict[str, Any]
    completion_tokens: int
    vector: str | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer under the digests that find it; times are seconds."""

    answer: KeptAnswer
    digests: tuple[str, ...]
    lifetime: float


class AnswerIndex:
    """Reads give nothing while Redis is down. A tenant's keys carry its id, and so do the answers."""

    def __init__(self, redis: Redis, *, namespace: str, settings: AnswerSettings) -> None:
        self._redis = redis
        self._prefix = f"{namespace}:answers"
        self._timeout = settings.redis_timeout.total_seconds()
        self._most = settings.most
        self._keep = settings.keep
        self._rest_until = 0.0

    async def find(self, tenant_id: str, digest: str) -> KeptAnswer | None:
        document = await self._ask(lambda: self._redis.get(self._entry(tenant_id, digest)))
        if not isinstance(document, bytes):
            return None
        answer = KeptAnswer(**orjson.loads(document))
        if answer.tenant_id != tenant_id:
            return None
        erased = await self._ask(lambda: self._redis.exists(self._tombstone(answer.job_id)))
        return answer if erased == 0 else None

    async def put(self, entries: Sequence[Entry]) -> None:
        """In one round trip for all. Raises what Redis raises."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            for entry in entries:
                self._add(pipeline, entry)
            await pipeline.execute()
        for tenant_id in {entry.answer.tenant_id for entry in entries}:
            await self._drop_oldest(tenant_id)

    async def forget(self, job_id: str) -> int:
        """Removes what this job's answer was kept under; the number of entries.

        What is on its way into the index is not served either. Raises `EventsUnavailable`.
        """
        try:
            async with asyncio.timeout(self._timeout * 4):
                await self._redis.set(self._tombstone(job_id), b"", px=self._keep)
                keys = list(await self._redis.smembers(self._job(job_id)))
                gone = await self._redis.delete(*keys) if keys else 0
                await self._redis.delete(self._job(job_id))
        except REDIS_DOWN as error:
            raise EventsUnavailable("kept answers cannot be removed now; try again") from error
        return int(gone)

    def _add(self, pipeline: Any, entry: Entry) -> None:
        document = orjson.dumps(asdict(entry.answer))
        if len(document) > _LARGEST or entry.lifetime <= 0:
            return
        lifetime = timedelta(seconds=entry.lifetime)
        tenant_id, job_id = entry.answer.tenant_id, entry.answer.job_id
        keys = [self._entry(tenant_id, digest) for digest in entry.digests]
        for key in keys:
            pipeline.set(key, document, px=lifetime)
        pipeline.sadd(self._job(job_id), *keys)
        pipeline.pexpire(self._job(job_id), lifetime)
        ends = time.time() + entry.lifetime
        pipeline.zadd(self._tenant(tenant_id), dict.fromkeys(keys, ends))
        pipeline.pexpire(self._tenant(tenant_id), self._keep)

    async def _drop_oldest(self, tenant_id: str) -> None:
        """Those that expired leave the count, and those beyond the bound leave the index."""
        name = self._tenant(tenant_id)
        await self._redis.zremrangebyscore(name, "-inf", time.time())
        excess = await self._redis.zcard(name) - self._most
        if excess > 0:
            popped: list[Any] = list(await self._redis.zpopmin(name, excess))
            await self._redis.delete(*(key for key, _ in popped))

    async def _ask(self, question: Callable[[], Awaitable[Found]]) -> Found | None:
        if time.monotonic() < self._rest_until:
            return None
        try:
            async with asyncio.timeout(self._timeout):
                return await question()
        except REDIS_DOWN as error:
            self._rest_until = time.monotonic() + _REST
            logger.debug("kept_answers_unavailable", reason=type(error).__name__)
            return None

    def _entry(self, tenant_id: str, digest: str) -> str:
        return f"{self._prefix}:{tenant_id}:{digest}"

    def _tenant(self, tenant_id: str) -> str:
        return f"{self._prefix}-of-tenant:{tenant_id}"

    def _job(self, job_id: str) -> str:
        return f"{self._prefix}-of-job:{job_id}"

    def _tombstone(self, job_id: str) -> str:
        return f"{self._prefix}-erased:{job_id}"
