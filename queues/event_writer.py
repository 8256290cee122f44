"""Writes the events of jobs to Redis: buffered, bounded, and never in the way of the one who writes."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from redis.asyncio import Redis

from core.logs import get_logger
from core.settings import RedisSettings, Settings
from models.views import JobView
from queues.events import POKE_DONE, POKE_MORE, EventKind, EventNames, encode
from queues.redis import REDIS_DOWN, Batch, Command

logger = get_logger(__name__)

_MAX_BUFFER: Final = 16 * 1024 * 1024  # bytes, roughly
_BIG: Final = 256 * 1024  # bytes that are worth a flush before its time
_PER_EVENT: Final = 200  # bytes of an entry beside its text
_JOBS_PER_BATCH: Final = 100  # Redis serves nobody else meanwhile: about a millisecond
_PAUSE_WHILE_DOWN: Final = 0.5  # seconds
_TICK: Final = 0.005  # seconds between two flushes: what several jobs have to say meanwhile leaves as one


@dataclass(slots=True)
class _Tokens:
    """Consecutive tokens of one attempt, to be one event."""

    attempt: int
    index: int
    count: int = 0
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)

    def takes(self, attempt: int, index: int, reasoning: str) -> bool:
        # Thoughts come before text; a thought after text must not be moved before it.
        follows = attempt == self.attempt and index == self.index + self.count
        return follows and not (reasoning and self.text)

    def add(self, text: str, reasoning: str, count: int) -> None:
        self.count += count
        if text:
            self.text.append(text)
        if reasoning:
            self.reasoning.append(reasoning)

    def data(self) -> dict[str, Any]:
        return {
            "attempt": self.attempt,
            "index": self.index,
            "count": self.count,
            "text": "".join(self.text),
            "reasoning": "".join(self.reasoning) or None,
        }


@dataclass(frozen=True, slots=True)
class _Plain:
    kind: str
    data: dict[str, Any]


_Entry = _Tokens | _Plain | JobView


@dataclass(slots=True)
class _Waiting:
    """What one job has to say; `size` in bytes, roughly."""

    entries: list[_Entry] = field(default_factory=list)
    size: int = 0

    @property
    def is_urgent(self) -> bool:
        return not all(isinstance(entry, _Tokens) for entry in self.entries)


class EventWriter:
    """One per process. `token`, `emit` and `finished` return at once and never raise.

    What changes a job's state and the first tokens of an answer leave at once, further tokens of it once in
    `flush_every`: whoever reads along sees no difference between 20 and 100 events a second, but each costs
    the worker, Redis and the API some 0.5 ms together.

    While Redis is down events are dropped and counted; their readers find the truth in the database.
    """

    def __init__(
        self, redis: Redis, *, namespace: str, settings: RedisSettings, flush_every: timedelta
    ) -> None:
        self.dropped = 0
        self._batch = Batch(redis)
        self._names = EventNames(namespace)
        self._settings = settings
        self._length = str(settings.events_length)
        self._ttl = str(int(settings.events_ttl.total_seconds()))
        self._flush_every = flush_every.total_seconds()
        self._buffer: dict[str, _Waiting] = {}
        self._told: dict[str, float] = {}  # when tokens of a job left last, loop time
        self._held = 0
        self._down = False
        self._closing = False
        self._next_flush = 0.0
        self._sending = asyncio.Lock()
        self._something = asyncio.Event()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, redis: Redis, settings: Settings) -> "EventWriter":
        """As the settings say, not started yet."""
        return cls(
            redis,
            namespace=settings.broker.namespace,
            settings=settings.redis,
            flush_every=settings.worker.event_flush,
        )

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="event-writer")

    async def close(self) -> None:
        """Flushes what is buffered, for as long as one command may take."""
        self._closing = True
        self._something.set()
        self._hurry.set()
        if self._task is not None:
            await self._task

    def token(
        self, job_id: str, *, attempt: int, index: int, text: str, reasoning: str = "", count: int = 1
    ) -> None:
        """`count` tokens of an attempt, from number `index` on. Consecutive ones leave as one event."""
        entries = self._room(job_id, len(text) + len(reasoning) + _PER_EVENT)
        if entries is None:
            return
        last = entries[-1] if entries else None
        if not isinstance(last, _Tokens) or not last.takes(attempt, index, reasoning):
            last = _Tokens(attempt, index)
            entries.append(last)
        last.add(text, reasoning, count)

    def emit(self, job_id: str, kind: str, data: dict[str, Any]) -> None:
        if (entries := self._room(job_id, _PER_EVENT)) is not None:
            entries.append(_Plain(kind, data))

    def finished(self, view: JobView) -> None:
        """After the commit: the hot copy for those who poll, and `done` for those who listen."""
        text = (view.output or {}).get("text") or ""
        if (entries := self._room(view.id, len(text) + 4 * _PER_EVENT)) is not None:
            entries.append(view)

    def _room(self, job_id: str, size: int) -> list[_Entry] | None:
        """Where the job's next entry goes; None when the buffer is full."""
        if self._closing or self._held + size > _MAX_BUFFER:
            self._drop(1)
            return None
        self._held += size
        self._something.set()
        if self._held > _BIG:
            self._hurry.set()
        waiting = self._buffer.setdefault(job_id, _Waiting())
        waiting.size += size
        return waiting.entries

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        while not (self._closing and not self._buffer):
            await self._something.wait()
            # The first event after a silence leaves at once.
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_flush):
                    await self._hurry.wait()
            async with self._sending:
                await self._flush(self._take_ripe(clock()))
            self._next_flush = clock() + (_PAUSE_WHILE_DOWN if self._down else _TICK)

    async def flush(self) -> None:
        """Sends what is buffered now, rather than at its time; returns when all before it is sent, too."""
        async with self._sending:
            await self._flush(self._take_all())

    def _take_ripe(self, now: float) -> dict[str, _Waiting]:
        """What is to leave now; all of it, when it is much."""
        if self._hurry.is_set():
            return self._take_all()
        late = now - self._flush_every
        self._told = {job_id: told for job_id, told in self._told.items() if told > late}
        ripe = {
            job_id: waiting
            for job_id, waiting in self._buffer.items()
            if waiting.is_urgent or job_id not in self._told
        }
        for job_id, waiting in ripe.items():
            del self._buffer[job_id]
            self._held -= waiting.size
            if any(isinstance(entry, _Tokens) for entry in waiting.entries):
                self._told[job_id] = now
        if not self._buffer:
            self._something.clear()
        return ripe

    def _take_all(self) -> dict[str, _Waiting]:
        buffer, self._buffer, self._held = self._buffer, {}, 0
        if not self._closing:
            self._something.clear()
            self._hurry.clear()
        return buffer

    async def _flush(self, ripe: dict[str, _Waiting]) -> None:
        jobs = [(job_id, waiting.entries) for job_id, waiting in ripe.items()]
        for start in range(0, len(jobs), _JOBS_PER_BATCH):
            chunk = jobs[start : start + _JOBS_PER_BATCH]
            if not await self._send(chunk):
                self._drop(sum(len(entries) for _, entries in jobs[start:]))
                return

    async def _send(self, jobs: list[tuple[str, list[_Entry]]]) -> bool:
        commands: list[Command] = []
        for job_id, entries in jobs:
            try:
                commands += self._commands(job_id, entries)
            except (TypeError, UnicodeEncodeError):  # orjson's refusal: a lone surrogate of an engine, say
                self._drop(len(entries))
                logger.warning("event_not_encodable", job_id=job_id)
        try:
            async with asyncio.timeout(2 * self._settings.command_timeout.total_seconds()):
                await self._batch.run(commands)
        except REDIS_DOWN as error:
            self._note_outage(error)
            return False
        if self._down:
            self._down = False
            logger.info("events_recovered", dropped=self.dropped)
        return True

    def _commands(self, job_id: str, entries: list[_Entry]) -> list[Command]:
        stream, commands = self._names.stream(job_id), []
        add = ("XADD", stream, "MAXLEN", "~", self._length, "*", "kind")
        poke = POKE_MORE
        for entry in entries:
            match entry:
                case JobView():
                    commands.append(self._hot_copy(entry))
                    poke = POKE_DONE
                    kind, data = EventKind.DONE.value, {"status": entry.status, "version": entry.version}
                case _Tokens():
                    kind, data = EventKind.TOKEN.value, entry.data()
                case _Plain():
                    kind, data = entry.kind, entry.data
            commands.append((*add, kind, "data", encode(data)))
        commands.append(("EXPIRE", stream, self._ttl))
        commands.append(("PUBLISH", self._names.poke(job_id), poke))
        return commands

    def _hot_copy(self, view: JobView) -> Command:
        ttl = self._settings.result_ttl
        if view.expires_at is not None:
            ttl = min(ttl, view.expires_at - datetime.now(UTC))
        milliseconds = max(1000, int(ttl.total_seconds() * 1000))
        # NX: a job ends once, so whoever wrote first was right; it may have been the tombstone of an erasure.
        document = view.to_json().decode()
        return ("SET", self._names.result(view.id), document, "PX", str(milliseconds), "NX")

    def _drop(self, events: int) -> None:
        self.dropped += events

    def _note_outage(self, error: Exception) -> None:
        if not self._down:
            self._down = True
            logger.warning("events_unavailable", reason=type(error).__name__)
