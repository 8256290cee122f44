"""Tells the workers at once that a job was cancelled. The flag in the database remains the truth."""

import asyncio
from collections.abc import Callable, Sequence

from redis.asyncio import Redis

from core.logs import get_logger
from queues.events import EventNames
from queues.redis import REDIS_DOWN

logger = get_logger(__name__)

_PAUSE = 1.0  # seconds before the next attempt to connect
_PATIENCE = 5.0  # seconds of silence before the connection is tried


async def publish_cancels(redis: Redis, namespace: str, job_ids: Sequence[str]) -> None:
    """After the commit of a cancel. A lost notice costs one lease heartbeat, so it never raises."""
    if not job_ids:
        return
    try:
        async with redis.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.publish(EventNames(namespace).cancel, job_id)
            await pipeline.execute()
    except REDIS_DOWN as error:
        logger.debug("cancel_notices_lost", jobs=len(job_ids), reason=type(error).__name__)


class CancelListener:
    """Calls `on_cancel(job_id)` in this loop for every notice, whichever worker runs the job."""

    def __init__(self, redis: Redis, *, namespace: str, on_cancel: Callable[[str], None]) -> None:
        self._redis = redis
        self._channel = EventNames(namespace).cancel
        self._on_cancel = on_cancel
        self._task: asyncio.Task[None] | None = None
        self.listening = asyncio.Event()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="cancel-listener")

    async def close(self) -> None:
        # Python 3.11's wait_for, in fakeredis, can swallow a cancellation.
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.1)

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except REDIS_DOWN as error:
                if self.listening.is_set():
                    logger.warning("cancel_notices_unavailable", reason=type(error).__name__)
                self.listening.clear()
            await asyncio.sleep(_PAUSE)

    async def _listen(self) -> None:
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(self._channel)
            silent = False
            while True:
                message = await pubsub.get_message(timeout=_PATIENCE)
                if message is None:
                    if silent:
                        raise TimeoutError
                    silent = True
                    await pubsub.ping()
                    continue
                silent = False
                if message["type"] == "subscribe":
                    self.listening.set()
                elif message["type"] == "message":
                    self._on_cancel(message["data"].decode())
