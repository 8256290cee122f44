"""The whole platform around an SGLang server: submitted over HTTP, timed until the last result is stored."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import orjson

from benchmarks.arms import QUIET, dsn
from benchmarks.gpu.bare import Result, total
from benchmarks.gpu.prompts import Request
from benchmarks.gpu.server import KEY
from tests.platform import Platform, running_platform
from tests.services import Services

_BULK: Final = 64
_WITHIN: Final = 400.0  # seconds
_ENTRY: Final = """
[[model]]
name = "m"
engine = "sglang"
url = "{url}"
api_key_env = "BENCH_SGLANG_KEY"
slots = {slots}
context_length = 8192
chat = false
tokenizer = "{tokenizer}"
"""
_ENDED: Final = """
SELECT j.id, j.status, j.attempt, r.usage, (r.timings->>'run_ms')::float / 1000 AS run,
       (r.timings->>'first_token_ms')::float / 1000 AS first_token,
       extract(epoch FROM j.created_at)::float AS created, extract(epoch FROM j.started_at)::float AS started,
       extract(epoch FROM j.finished_at)::float AS at
FROM jobs j JOIN results r ON r.job_id = j.id WHERE j.id = ANY($1)
"""


@dataclass(frozen=True, slots=True)
class Course:
    """One run: what came of it, and when its jobs passed each stage, in seconds since 1970, in order."""

    result: Result
    began: float
    stages: dict[str, list[float]]

    def document(self) -> dict[str, Any]:
        """Seconds after the first submission by which the first, half, and all of the jobs were so far."""
        return {
            name: [round(times[at] - self.began, 2) for at in (0, len(times) // 2, -1)]
            for name, times in self.stages.items()
        }

    def backlog(self, slots: int) -> tuple[float, float] | None:
        """From when the slots were full until nothing waited for one any more."""
        heard, started = self.stages["first token"], self.stages["claimed"]
        return (heard[slots - 1], started[-1]) if len(started) > 2 * slots else None


@dataclass
class Whole:
    """A running platform. Its database outlives a change of workers."""

    platform: Platform
    database: str
    key: str
    slots: int
    more_workers: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def run(self, requests: Sequence[Request], *, named: bool = False) -> Course:
        """`named`: each group's name is sent as `cache_key`, so the order may keep it together."""
        return asyncio.run(self._run(requests, named=named))

    async def _run(self, requests: Sequence[Request], *, named: bool) -> Course:
        began = time.time()
        ids = await self.submit(requests, named=named)
        rows = await self.ended(ids)
        if failed := [row["status"] for row in rows if row["status"] != "completed"]:
            raise RuntimeError(f"{len(failed)} of {len(ids)} jobs: {failed[0]}")
        stages = {
            "stored": [row["created"] for row in rows],
            "claimed": [row["started"] for row in rows],
            "first token": [row["started"] + row["first_token"] for row in rows],
            "answered": [row["started"] + row["run"] for row in rows],
            "settled": [row["at"] for row in rows],
        }
        seconds = max(stages["settled"]) - began
        result = total([_document(row["usage"]) for row in rows], seconds)
        return Course(result, began, {name: sorted(times) for name, times in stages.items()})

    async def submit(self, requests: Sequence[Request], *, named: bool = False) -> list[str]:
        return await submit(self.platform.url, self.key, requests, named=named)

    async def ended(self, ids: Sequence[str], *, within: float = _WITHIN) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.database)
        try:
            end = time.monotonic() + within
            while time.monotonic() < end:
                left = await connection.fetchval(
                    "SELECT count(*) FROM jobs WHERE id = ANY($1) AND finished_at IS NULL", ids
                )
                if left == 0:
                    return list(await connection.fetch(_ENDED, ids))
                await asyncio.sleep(0.05)
            raise TimeoutError(f"{left} of {len(ids)} jobs are not finished")
        finally:
            await connection.close()

    def workers(self) -> list[int]:
        first = self.platform.processes["worker"].pid
        return [first, *(process.pid for process in self.more_workers)]


async def submit(url: str, key: str, requests: Sequence[Request], *, named: bool = False) -> list[str]:
    """In bulks, several at once; the jobs' ids."""
    lanes = asyncio.Semaphore(4)
    async with aiohttp.ClientSession(url, headers={"Authorization": f"Bearer {key}"}) as client:

        async def send(some: Sequence[Request]) -> list[str]:
            body = orjson.dumps({"jobs": [_job(one, named=named) for one in some]})
            async with lanes, client.post("/v1/jobs/bulk", data=body, headers=_JSON) as answer:
                document = orjson.loads(await answer.read())
                if answer.status != 200 or any(one["job"] is None for one in document["data"]):
                    raise RuntimeError(f"{answer.status}: {str(document)[:500]}")
                return [one["job"]["id"] for one in document["data"]]

        chunks = [requests[start : start + _BULK] for start in range(0, len(requests), _BULK)]
        return [job_id for ids in await asyncio.gather(*map(send, chunks)) for job_id in ids]


def catalogue(folder: Path, url: str, *, model: Path, slots: int) -> Path:
    """An entry that attaches to the server; its key is in the environment."""
    path = folder / "models.toml"
    path.write_text(_ENTRY.format(url=url, slots=slots, tokenizer=model / "tokenizer.json"))
    os.environ["BENCH_SGLANG_KEY"] = KEY
    return path


@contextmanager
def whole(
    services: Services, folder: Path, url: str, *, model: Path, slots: int, workers: int = 1
) -> Iterator[Whole]:
    """API, relay, upkeep and `workers` attached to one server, with so many slots in all."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = QUIET | {"CATALOGUE": str(catalogue(folder, url, model=model, slots=slots // workers))}
    with running_platform(
        services, folder, processes=("api", "relay", "upkeep", "worker"), **settings
    ) as platform:
        found = Whole(platform, dsn(services), platform.key(f"bench-{time.monotonic_ns()}"), slots)
        found.more_workers += [_worker(platform, number) for number in range(1, workers)]
        try:
            _until_workers(found, workers)
            yield found
        finally:
            for process in found.more_workers:
                process.send_signal(signal.SIGTERM)
            for process in found.more_workers:
                process.wait(60)


def _worker(platform: Platform, number: int) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "cli.main", "worker", "--hostname", f"bench{number}@%h"]
    with (platform.folder / f"worker{number}.log").open("ab") as log:
        return subprocess.Popen(command, env=platform.environment, stdout=log, stderr=log)


def _until_workers(found: Whole, wanted: int) -> None:
    end = time.monotonic() + 60
    while asyncio.run(_count(found.database)) < wanted:
        if time.monotonic() > end:
            raise TimeoutError(f"{wanted} workers did not come up")
        time.sleep(0.2)


async def _count(database: str) -> int:
    connection = await asyncpg.connect(database)
    try:
        fresh = "SELECT count(*) FROM workers WHERE state <> 'draining' AND seen_at > now() - interval '10 s'"
        return int(await connection.fetchval(fresh))
    finally:
        await connection.close()


_JSON: Final = {"Content-Type": "application/json"}


def _job(request: Request, *, named: bool) -> dict[str, Any]:
    job: dict[str, Any] = {"prompt": request.text, "max_tokens": request.max_tokens, "temperature": 0}
    return job | ({"cache_key": request.group} if named else {})


def _document(value: Any) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(value) if isinstance(value, str | bytes) else value
    return found
