"""Reads the events of many jobs over one subscription: one reader per API process."""

import asyncio
from collections import deque
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from core.errors import EventsUnavailable
from core.logs import get_logger
from queues.events import POKE_DONE, START, Event, EventKind, EventNames, decode, order, place
from queues.redis import REDIS_DOWN

logger = get_logger(__name__)

_QUEUE: Final = 256  # events that wait for one slow listener
_CHUNK: Final = 256  # events read of one job at once
_BATCH: Final = 200  # jobs read in one pipeline
_CHANNELS: Final = 500  # channels in one command
_PATIENCE: Final = 5.0  # seconds of silence before the connection is tried
_PAUSE: Final = 1.0  # seconds before the next attempt to connect


class Subscription:
    """One listener of one job. Use as `async with`; what it has not read yet stays in Redis."""

    def __init__(self, reader: "EventReader", job_id: str, after: str) -> None:
        self.job_id = job_id
        self.cursor = after
        self._reader = reader
        self._events: deque[Event] = deque()
        self._ready = asyncio.Event()
        self._lost = False

    async def __aenter__(self) -> Self:
        self._reader.attach(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.detach(self)

    @property
    def has_room(self) -> bool:
        return len(self._events) < _QUEUE

    async def next(self, within: float) -> Event | None:
        """The next event, or None when none came in `within` seconds. Raises `EventsUnavailable`."""
        if not self._events:
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._ready.wait()
        if not self._events:
            if self._lost:
                raise EventsUnavailable("the event stream was interrupted")
            return None
        was_full = not self.has_room
        event = self._events.popleft()
        if not self._events and not self._lost:
            self._ready.clear()
        if was_full:
            self._reader.look_again(self.job_id)
        return event

    def offer(self, event: Event) -> None:
        """Takes an event that is new to it; a full queue leaves it, and what follows, for later."""
        if self.has_room and order(event.id) > order(self.cursor):
            self._events.append(event)
            self.cursor = event.id
            self._ready.set()

    def lose(self) -> None:
        self._lost = True
        self._ready.set()


class _Feed:
    """Everybody who follows one job."""

    def __init__(self) -> None:
        self.listeners: set[Subscription] = set()
        self.waiters: set[asyncio.Future[None]] = set()
        self.asks_for_result = False

    @property
    def is_idle(self) -> bool:
        return not self.listeners and not self.waiters

    def start_of_unread(self) -> str | None:
        """The earliest place that a listener with room has not read; None when nobody can take more."""
        cursors = [listener.cursor for listener in self.listeners if listener.has_room]
        return min(cursors, key=order) if cursors else None

    def finish(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def lose(self) -> None:
        for listener in self.listeners:
            listener.lose()
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_exception(EventsUnavailable("the event stream was interrupted"))


class EventReader:
    """Fans the events of all followed jobs out, over one pub/sub connection and one pipeline at a time.

    A poke says that a job has something new; so does the confirmation of a subscription, which closes
    the gap between the first read and the first poke. While Redis is down every call raises
    `EventsUnavailable` at once and callers look in the database instead.
    """

    def __init__(self, redis: Redis, *, namespace: str) -> None:
        self._redis = redis
        self._names = EventNames(namespace)
        self._prefix = len(self._names.poke("").encode())
        self._feeds: dict[str, _Feed] = {}
        self._subscribed: set[str] = set()
        self._confirmed: set[str] = set()
        self._changed: dict[str, None] = {}
        self._poked: dict[str, None] = {}
        self._change = asyncio.Event()
        self._poke = asyncio.Event()
        self._up = False
        self._was_up = False
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_up(self) -> bool:
        return self._up

    async def start(self) -> None:
        """Returns after the first attempt to connect, whether it succeeded or not."""
        self._task = asyncio.create_task(self._run(), name="event-reader")
        await self._tried.wait()

    async def close(self) -> None:
        self._fall()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def subscribe(self, job_id: str, after: str | None = None) -> Subscription:
        """`async with reader.subscribe(job_id, after) as subscription: await subscription.next(15)`."""
        return Subscription(self, job_id, place(after))

    async def wait_finished(self, job_id: str, within: float) -> bool:
        """True once the job's `done` is known, False after `within` seconds. Raises `EventsUnavailable`."""
        feed = self._feed(job_id)
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        feed.waiters.add(waiter)
        feed.asks_for_result = True
        self._follow(job_id)
        try:
            async with asyncio.timeout(within):
                await waiter
        except TimeoutError:
            return False
        finally:
            feed.waiters.discard(waiter)
            self._leave(job_id, feed)
        return True

    def attach(self, subscription: Subscription) -> None:
        self._feed(subscription.job_id).listeners.add(subscription)
        self._follow(subscription.job_id)

    def detach(self, subscription: Subscription) -> None:
        feed = self._feeds.get(subscription.job_id)
        if feed is not None:
            feed.listeners.discard(subscription)
            self._leave(subscription.job_id, feed)

    def look_again(self, job_id: str) -> None:
        self._poked[job_id] = None
        self._poke.set()

    def _feed(self, job_id: str) -> _Feed:
        if not self._up:
            raise EventsUnavailable("Redis cannot be reached")
        return self._feeds.setdefault(job_id, _Feed())

    def _follow(self, job_id: str) -> None:
        if job_id in self._confirmed:
            self.look_again(job_id)
        else:
            self._note_change(job_id)

    def _leave(self, job_id: str, feed: _Feed) -> None:
        if feed.is_idle and self._feeds.get(job_id) is feed:
            del self._feeds[job_id]
            self._note_change(job_id)

    def _note_change(self, job_id: str) -> None:
        self._changed[job_id] = None
        self._change.set()

    async def _run(self) -> None:
        while True:
            try:
                async with self._redis.pubsub() as pubsub, asyncio.TaskGroup() as group:
                    await pubsub.subscribe(self._names.idle)
                    self._rise()
                    group.create_task(self._while_up(self._listen(pubsub)))
                    group.create_task(self._while_up(self._keep_subscribed(pubsub)))
                    group.create_task(self._while_up(self._read_poked()))
            except* REDIS_DOWN as errors:
                self._note_outage(errors.exceptions[0])
            await asyncio.sleep(_PAUSE)

    async def _while_up(self, work: Coroutine[None, None, None]) -> None:
        # Python 3.11's wait_for, in fakeredis, can swallow a cancellation; the flag ends the loops then.
        try:
            await work
        finally:
            self._up = False

    def _rise(self) -> None:
        if self._tried.is_set():
            logger.info("event_reader_recovered")
        self._up = self._was_up = True
        self._tried.set()

    def _note_outage(self, error: BaseException) -> None:
        if self._was_up or not self._tried.is_set():
            logger.warning("event_reader_interrupted", reason=type(error).__name__)
        self._was_up = False
        self._fall()
        self._tried.set()

    def _fall(self) -> None:
        self._up = False
        feeds, self._feeds = self._feeds, {}
        for known in (self._subscribed, self._confirmed, self._changed, self._poked):
            known.clear()
        for feed in feeds.values():
            feed.lose()

    async def _listen(self, pubsub: PubSub) -> None:
        silent = False
        while self._up:
            message = await pubsub.get_message(timeout=_PATIENCE)
            if message is not None:
                silent = False
                self._take(message)
            elif silent:
                raise TimeoutError
            else:
                silent = True
                await pubsub.ping()

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] not in {"subscribe", "message"}:
            return
        job_id = message["channel"][self._prefix :].decode()
        feed = self._feeds.get(job_id)
        if feed is None:
            return
        if message["type"] == "subscribe":
            self._confirmed.add(job_id)
        elif message["data"] == POKE_DONE.encode():
            feed.finish()
        if feed.listeners or feed.asks_for_result:
            self.look_again(job_id)

    async def _keep_subscribed(self, pubsub: PubSub) -> None:
        while self._up:
            await self._change.wait()
            self._change.clear()
            changed, self._changed = list(self._changed), {}
            come = [j for j in changed if j in self._feeds and j not in self._subscribed]
            gone = [j for j in changed if j not in self._feeds and j in self._subscribed]
            for jobs in _chunks(come):
                self._subscribed.update(jobs)
                await pubsub.subscribe(*(self._names.poke(job_id) for job_id in jobs))
            for jobs in _chunks(gone):
                self._subscribed.difference_update(jobs)
                self._confirmed.difference_update(jobs)
                await pubsub.unsubscribe(*(self._names.poke(job_id) for job_id in jobs))

    async def _read_poked(self) -> None:
        while self._up:
            await self._poke.wait()
            self._poke.clear()
            while self._poked:
                jobs = list(self._poked)[:_BATCH]
                for job_id in jobs:
                    del self._poked[job_id]
                await self._read([job_id for job_id in jobs if job_id in self._feeds])

    async def _read(self, jobs: list[str]) -> None:
        streams = [(job_id, unread) for job_id in jobs if (unread := self._feeds[job_id].start_of_unread())]
        results = [job_id for job_id in jobs if self._feeds[job_id].asks_for_result]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for job_id, unread in streams:
                pipeline.xrange(self._names.stream(job_id), min=_past(unread), count=_CHUNK)
            for job_id in results:
                pipeline.exists(self._names.result(job_id))
            answers = await pipeline.execute()
        for (job_id, _), entries in zip(streams, answers[: len(streams)], strict=True):
            self._deliver(job_id, entries)
        for job_id, is_there in zip(results, answers[len(streams) :], strict=True):
            feed = self._feeds.get(job_id)
            if feed is not None:
                feed.asks_for_result = False
                if is_there:
                    feed.finish()

    def _deliver(self, job_id: str, entries: list[Any]) -> None:
        feed = self._feeds.get(job_id)
        if feed is None:
            return
        for entry in entries:
            event = decode(entry)
            for listener in feed.listeners:
                listener.offer(event)
            if event.kind == EventKind.DONE:
                feed.finish()
        if len(entries) == _CHUNK:
            self.look_again(job_id)


def _past(event_id: str) -> str:
    """Redis's notation for an exclusive bound."""
    return "-" if event_id == START else f"({event_id}"


def _chunks(jobs: list[str]) -> list[list[str]]:
    return [jobs[start : start + _CHANNELS] for start in range(0, len(jobs), _CHANNELS)]
