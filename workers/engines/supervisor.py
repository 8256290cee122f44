"""Starts a server in a child process, keeps it running and ends it."""

import asyncio
import os
import random
import re
import signal
from asyncio.subprocess import PIPE, STDOUT, Process
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic
from typing import Final

import structlog

from core.errors import EngineUnavailable
from workers.engines.protocol import EngineState

_LAST_WORDS: Final = re.compile(
    r"GGML_ASSERT|CUDA error|out of memory|failed to allocate|bad_alloc|segmentation fault|fatal",
    re.IGNORECASE,
)

log = structlog.get_logger(__name__)

_PROGRESS_EVERY = 10.0
_KEPT_LINES = 40


@dataclass(frozen=True, slots=True)
class Launch:
    """What to run. Secrets go to `stdin`: other processes can read argv. `environ` is added to ours."""

    name: str
    argv: tuple[str, ...]
    stdin: bytes = b""
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Restarts:
    """How long to wait for a start and an end, and between two attempts."""

    start_within: timedelta = timedelta(minutes=10)
    stop_within: timedelta = timedelta(seconds=5)
    first_delay: timedelta = timedelta(milliseconds=500)
    longest_delay: timedelta = timedelta(seconds=30)

    def delay(self, failures: int) -> float:
        """Doubles per failure; the jitter keeps many workers from loading models in step."""
        ceiling = min(self.longest_delay, self.first_delay * 2 ** min(failures, 16)).total_seconds()
        return random.uniform(ceiling / 2, ceiling)  # noqa: S311  # not a secret


def last_words(lines: Iterable[str]) -> str:
    """Why a serving engine died. Nothing else that it wrote is told: other lines may quote a request."""
    return "\n".join(line for line in lines if _LAST_WORDS.search(line) and "{" not in line)


class Supervisor:
    """One child at a time; `ready` says whether it would serve a request now."""

    def __init__(
        self, launch: Launch, ready: Callable[[], Awaitable[bool]], *, restarts: Restarts | None = None
    ) -> None:
        self.state = EngineState.STARTING
        self.detail = ""
        self._launch = launch
        self._ready = ready
        self._restarts = restarts or Restarts()
        self._process: Process | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reader: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of the child that runs now."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    @property
    def log_tail(self) -> str:
        return "\n".join(self._lines)

    async def start(self) -> None:
        """The first start is not tried again: what stops it is mostly a mistake, to be shown at once."""
        await self._start_once()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep-{self._launch.name}")

    def kill(self, reason: str) -> None:
        """For a child that hangs: it is killed, and started again like one that died."""
        log.warning("engine_killed", engine=self._launch.name, pid=self.pid, reason=reason)
        self._signal_group(signal.SIGKILL)

    async def close(self) -> None:
        """SIGTERM, then SIGKILL: afterwards nothing of the child's process group is left."""
        self.state = EngineState.CLOSED
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._stop()

    async def _keep(self) -> None:
        failures = 0
        while self._process is not None:
            started = monotonic()
            code = await self._process.wait()
            self.state, self.detail = EngineState.RESTARTING, f"exited with {code}"
            log.error("engine_died", engine=self._launch.name, code=code, log=last_words(self._lines))
            lived = monotonic() - started
            failures = 0 if lived > self._restarts.longest_delay.total_seconds() else failures + 1
            failures = await self._start_again(failures)

    async def _start_again(self, failures: int) -> int:
        while True:
            await self._stop()
            await asyncio.sleep(self._restarts.delay(failures))
            try:
                await self._start_once()
            except (EngineUnavailable, OSError) as error:
                failures += 1
                self.detail = str(error)
                log.warning("engine_start_failed", engine=self._launch.name, failures=failures)
            else:
                return failures

    async def _start_once(self) -> None:
        try:
            self._process = process = await self._spawn()
            await self._until_ready(process)
        except BaseException:
            await self._stop()
            raise
        self.state, self.detail = EngineState.READY, ""

    async def _spawn(self) -> Process:
        self._lines.clear()  # what an earlier life wrote while it served may quote requests
        process = await asyncio.create_subprocess_exec(
            *self._launch.argv,
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            env={**os.environ, **self._launch.environ},
            start_new_session=True,  # Ctrl-C is for the worker, which then ends its engine in order
        )
        self._reader = asyncio.create_task(self._collect(process), name=f"log-{self._launch.name}")
        if process.stdin is not None and self._launch.stdin:
            process.stdin.write(self._launch.stdin)
        return process

    async def _collect(self, process: Process) -> None:
        rest = ""
        while process.stdout is not None and (chunk := await process.stdout.read(2**16)):
            *lines, rest = (rest + chunk.decode(errors="replace")).split("\n")
            self._lines.extend(lines)
        if rest:
            self._lines.append(rest)

    async def _until_ready(self, process: Process) -> None:
        started = shown = monotonic()
        pause = 0.02
        while not await self._ready():
            now = monotonic()
            if process.returncode is not None:
                raise await self._death(process.returncode)
            if now - started > self._restarts.start_within.total_seconds():
                raise EngineUnavailable(
                    f"{self._launch.name} was not ready within {self._restarts.start_within}:\n"
                    f"{self.log_tail}"
                )
            if now - shown > _PROGRESS_EVERY:
                shown = now
                log.info("engine_starting", engine=self._launch.name, seconds=round(now - started))
            await asyncio.sleep(pause)
            pause = min(1.0, pause * 1.5)
        took = round(monotonic() - started, 2)
        log.info("engine_started", engine=self._launch.name, pid=process.pid, seconds=took)

    async def _death(self, code: int) -> EngineUnavailable:
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=1)
        return EngineUnavailable(f"{self._launch.name} exited with {code} at its start:\n{self.log_tail}")

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), self._restarts.stop_within.total_seconds())
        self._signal_group(signal.SIGKILL, process.pid)
        await process.wait()
        if process.stdin is not None:
            process.stdin.close()
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)

    def _signal_group(self, number: signal.Signals, leader: int | None = None) -> None:
        leader = leader if leader is not None else self.pid
        if leader is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, number)
