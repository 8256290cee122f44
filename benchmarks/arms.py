"""What is measured side by side, as real processes: Penstock, and each of its rivals."""

import asyncio
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import redis

from tests.platform import Platform, running_platform
from tests.services import Services

_PATIENCE: Final = 60.0
# A catalogue whose engine is never started: the simulated worker takes its place.
CATALOGUE: Final = """
[[model]]
name = "default"
engine = "llamacpp"
path = "bundled:support-tiny"
slots = {slots}
"""
# Everybody gets what was asked: these benchmarks are not about overload.
QUIET: Final = {"LOG__LEVEL": "warning", "OVERLOAD__ENABLED": "false"}


@dataclass
class Arm:
    """One service under test. `pids` are its own processes, not those of the database or the broker."""

    url: str
    key: str | None = None
    pids: Sequence[int] = ()

    def stored(self) -> int:
        """Results stored so far."""
        raise NotImplementedError


@dataclass
class PenstockArm(Arm):
    platform: Platform | None = None
    database: str = ""
    _runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    _connection: asyncpg.Connection | None = None

    def stored(self) -> int:
        return self._runner.run(self._count())

    def close(self) -> None:
        if self._connection is not None:
            self._runner.run(self._connection.close())
        self._runner.close()

    async def _count(self) -> int:
        # One connection: PostgreSQL starts a process for each.
        self._connection = self._connection or await asyncpg.connect(self.database)
        return int(await self._connection.fetchval("SELECT count(*) FROM results"))


@dataclass
class RedisArm(Arm):
    """Its results are keys."""

    address: str = ""
    pattern: str = ""
    _client: Any = field(default=None)

    def stored(self) -> int:
        self._client = self._client or redis.Redis.from_url(self.address)
        return sum(1 for _ in self._client.scan_iter(match=self.pattern, count=5000))

    def clear(self) -> None:
        """Leaves nothing behind: Redis is shared, and whoever scans it pays for every key."""
        if self._client is not None:
            for key in self._client.scan_iter(match=self.pattern, count=5000):
                self._client.unlink(key)


def dsn(services: Services) -> str:
    return services.database_url.replace("postgresql+asyncpg", "postgresql")


@contextmanager
def penstock(
    services: Services,
    folder: Path,
    *,
    slots: int = 256,
    latency: tuple[float, float] = (0.0, 0.0),
    metrics: Mapping[str, int] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[PenstockArm]:
    """API, relay, upkeep and a worker around the simulated engine; `latency` in milliseconds.

    `metrics` are ports of processes that show theirs, `environment` is for all of them.
    """
    catalogue = folder / "models.toml"
    catalogue.write_text(CATALOGUE.format(slots=slots))
    settings = QUIET | {"CATALOGUE": str(catalogue)}
    with running_platform(services, folder, processes=(), metrics=metrics, **settings) as platform:
        platform.environment |= environment or {}
        for name in ("api", "relay", "upkeep"):
            platform.start(name)
        platform.environment |= {
            "BENCH_FIRST_TOKEN_MS": str(latency[0]),
            "BENCH_TOKEN_MS": str(latency[1]),
        }
        command = [sys.executable, "-m", "celery", "-A", "benchmarks.simulated_worker", "worker"]
        port = {"PENSTOCK_METRICS__PORT": str(metrics["worker"])} if metrics else {}
        log = (folder / "worker.log").open("ab")
        with log:
            platform.processes["worker"] = subprocess.Popen(
                command, env=platform.environment | port, stdout=log, stderr=log
            )
        platform.wait_until_ready()
        pids = [process.pid for process in platform.processes.values()]
        key = platform.key("benchmark")
        arm = PenstockArm(platform.url, key, pids, platform=platform, database=dsn(services))
        yield arm
        arm.close()


@contextmanager
def penstock_api(services: Services, folder: Path) -> Iterator[PenstockArm]:
    """The API alone: what it accepts waits in the database."""
    with running_platform(services, folder, processes=(), **QUIET) as platform:
        platform.start("api")
        _until_answers(f"{platform.url}/health", platform.processes["api"])
        pids = [platform.processes["api"].pid]
        key = platform.key("benchmark")
        arm = PenstockArm(platform.url, key, pids, platform=platform, database=dsn(services))
        yield arm
        arm.close()


@contextmanager
def front(factory: str, environment: Mapping[str, str]) -> Iterator[Arm]:
    """One of `benchmarks.rivals` under uvicorn, as fast as it goes: uvloop, httptools, no access log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", f"benchmarks.rivals:{factory}"]
    command += ["--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--log-level", "warning"]
    with child(command, environment) as process:
        _until_answers(f"http://127.0.0.1:{port}/openapi.json", process)
        yield Arm(f"http://127.0.0.1:{port}", pids=[process.pid])


@contextmanager
def celery_prefork(services: Services) -> Iterator[RedisArm]:
    environment = rival_environment(services)
    command = [sys.executable, "-c", _PREFORK]
    with front("delay", environment) as found, child(command, environment) as worker:
        arm = _redis_arm(found, environment, worker.pid)
        yield arm
        arm.clear()


@contextmanager
def bare_aio_pika(services: Services) -> Iterator[RedisArm]:
    environment = rival_environment(services)
    command = [sys.executable, "-m", "benchmarks.rivals"]
    with front("aio_pika_front", environment) as found, child(command, environment) as worker:
        arm = _redis_arm(found, environment, worker.pid)
        yield arm
        arm.clear()


# A name of its own: two workers of one name cannot share a virtual host.
_PREFORK: Final = """
from benchmarks.rivals import prefork

prefork().worker_main(["worker", "--hostname", "rival@%h", "--loglevel", "WARNING"])
"""


def _redis_arm(found: Arm, environment: Mapping[str, str], worker: int) -> RedisArm:
    pattern = f"{environment['RIVAL_PREFIX']}*"
    return RedisArm(
        found.url, pids=[*found.pids, worker], address=environment["RIVAL_REDIS"], pattern=pattern
    )


def rival_environment(services: Services) -> dict[str, str]:
    return {
        "RIVAL_DATABASE": services.database_url,
        "RIVAL_BROKER": services.broker_url,
        "RIVAL_REDIS": services.redis_url,
        "RIVAL_PREFIX": f"rival-{secrets.token_hex(4)}:",
    }


@contextmanager
def child(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=os.environ | dict(environment))
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_stored(arm: Arm, wanted: int, *, within: float = 240.0) -> None:
    end = time.monotonic() + within
    while arm.stored() < wanted:
        if time.monotonic() > end:
            raise TimeoutError(f"{arm.stored()} of {wanted} results within {within:.0f} s")
        time.sleep(0.05)


def _until_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} ended with {process.returncode}")
        with suppress(httpx.TransportError):
            httpx.get(url, timeout=2)
            return
        time.sleep(0.1)
    raise TimeoutError(f"{url} did not answer")
