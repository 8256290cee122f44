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

    def add(self, text: str, reasoning: str) -> None:
        self.count += 1
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


class EventWriter:
    """One per process. `token`, `emit` and `finished` return at once and never raise.

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
        self._buffer: dict[str, list[_Entry]] = {}
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

    def token(self, job_id: str, *, attempt: int, index: int, text: str, reasoning: str = "") -> None:
        """The token number `index` of an attempt, counted from 0. Consecutive ones leave as one event."""
        if not self._has_room(len(text) + len(reasoning) + _PER_EVENT):
            return
        entries = self._buffer.setdefault(job_id, [])
        last = entries[-1] if entries else None
        if not isinstance(last, _Tokens) or not last.takes(attempt, index, reasoning):
            last = _Tokens(attempt, index)
            entries.append(last)
        last.add(text, reasoning)

    def emit(self, job_id: str, kind: str, data: dict[str, Any]) -> None:
        if self._has_room(_PER_EVENT):
            self._buffer.setdefault(job_id, []).append(_Plain(kind, data))

    def finished(self, view: JobView) -> None:
        """After the commit: the hot copy for those who poll, and `done` for those who listen."""
        text = (view.output or {}).get("text") or ""
        if self._has_room(len(text) + 4 * _PER_EVENT):
            self._buffer.setdefault(view.id, []).append(view)

    def _has_room(self, size: int) -> bool:
        if self._closing or self._held + size > _MAX_BUFFER:
            self._drop(1)
            return False
        self._held += size
        self._something.set()
        if self._held > _BIG:
            self._hurry.set()
        return True

    async def _run(self) -> None:
        while not (self._closing and not self._buffer):
            await self._something.wait()
            # The first event after a silence leaves at once, and what follows gathers until its time, or
            # until it is much already.
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_flush):
                    await self._hurry.wait()
            await self.flush()
            pause = _PAUSE_WHILE_DOWN if self._down else self._flush_every
            self._next_flush = asyncio.get_running_loop().time() + pause

    async def flush(self) -> None:
        """Sends what is buffered now, rather than at its time; returns when all before it is sent, too."""
        async with self._sending:
            await self._flush()

    async def _flush(self) -> None:
        buffer, self._buffer, self._held = self._buffer, {}, 0
        if not self._closing:
            self._something.clear()
            self._hurry.clear()
        jobs = list(buffer.items())
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
