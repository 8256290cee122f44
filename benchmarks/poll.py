"""Polling, and 10,000 clients that wait: one API process, its memory, and a submit beside them.

Run: python -m benchmarks.poll [--idle 10000] [--rounds 3] [--json FILE]
"""

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from benchmarks import load, measure
from benchmarks.arms import PenstockArm, penstock, penstock_api, wait_stored
from benchmarks.measure import CpuMeter, Figure, many_files, ratio, resident_mb
from tests.services import open_services

CLIENTS = 64
MEMORY_MB = 1000.0
SLOWER = 1.2
_AT_ONCE = 200  # connections that are opened at the same time


def polls(arm: PenstockArm, requests: int, *, known: bool) -> dict[str, float]:
    """Of finished jobs; `known`: the client has the version that it asks for."""
    cpu = CpuMeter(arm.pids[:1])

    async def call(client: aiohttp.ClientSession, number: int) -> None:
        headers = {"If-None-Match": tags[number % len(tags)]} if known else {}
        async with client.get(f"/v1/jobs/{ids[number % len(ids)]}", headers=headers) as answer:
            await answer.read()
            if answer.status != (304 if known else 200):
                raise RuntimeError(f"{answer.status}")

    async def run() -> load.Outcome:
        async with load.session(arm.url, arm.key, connections=CLIENTS) as client:
            cpu.start()
            return await load.closed_loop(client, call, clients=CLIENTS, requests=requests)

    ids, tags = asyncio.run(_finished(arm))
    outcome = asyncio.run(run())
    return {"rate": outcome.rate, "cpu_us": 1e6 * cpu.seconds() / requests}


async def _finished(arm: PenstockArm) -> tuple[list[str], list[str]]:
    async with load.session(arm.url, arm.key, connections=8) as client:
        async with client.get("/v1/jobs", params={"status": "completed", "limit": 100}) as answer:
            ids = [job["id"] for job in (await answer.json())["data"]]
        tags = []
        for job_id in ids:
            async with client.get(f"/v1/jobs/{job_id}") as one:
                tags.append(one.headers["ETag"])
        return ids, tags


async def submit_ms(arm: PenstockArm, requests: int = 300) -> float:
    """The median of one client's submissions."""
    async with load.session(arm.url, arm.key, connections=1) as client:
        outcome = await load.closed_loop(client, load.submit(max_tokens=8), clients=1, requests=requests)
    return 1e3 * median(outcome.latencies)


async def beside(arm: PenstockArm, idle: int) -> dict[str, float]:
    """Half of them follow a job's events, half ask for its end with a long poll; the jobs never run."""
    alone = await submit_ms(arm)
    async with waiting(arm, idle):
        crowded = await submit_ms(arm)
        memory = resident_mb(arm.pids[0])
    again = await submit_ms(arm)
    return {"slower": crowded / median([alone, again]), "memory": memory}


@contextlib.asynccontextmanager
async def waiting(arm: PenstockArm, idle: int) -> AsyncIterator[None]:
    async with load.session(arm.url, arm.key, connections=0) as client:
        ids = [await load.submit(max_tokens=8)(client, number) for number in range(100)]
        gate, held = asyncio.Semaphore(_AT_ONCE), asyncio.Semaphore(0)
        tasks = [
            asyncio.create_task((_follow if n % 2 else _long_poll)(client, ids[n % 100], gate, held))
            for n in range(idle)
        ]
        for _ in range(idle // 2):  # the streams say when they are open; a long poll says nothing
            await held.acquire()
        await asyncio.sleep(1)
        failed = [task for task in tasks if task.done()]
        if failed:
            raise RuntimeError(f"{len(failed)} of {idle} do not wait: {failed[0].exception()}")
        yield
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _follow(
    client: aiohttp.ClientSession, job_id: str, gate: asyncio.Semaphore, held: asyncio.Semaphore
) -> None:
    timeout = aiohttp.ClientTimeout(total=None)
    async with gate:
        answer: Any = await client.get(f"/v1/jobs/{job_id}/events", timeout=timeout)
    held.release()
    async for _ in answer.content:
        pass


async def _long_poll(
    client: aiohttp.ClientSession, job_id: str, gate: asyncio.Semaphore, _: asyncio.Semaphore
) -> None:
    async with gate:
        await asyncio.sleep(0)
    while True:
        async with client.get(f"/v1/jobs/{job_id}", params={"wait": 60}) as answer:
            await answer.read()


def main() -> int:
    parser = measure.parser(__doc__, rounds=3)
    parser.add_argument("--idle", type=int, default=10_000, help="connections that wait")
    parser.add_argument("--requests", type=int, default=4000, help="polls per round")
    given = parser.parse_args()
    with (
        open_services() as services,
        tempfile.TemporaryDirectory() as folder,
        penstock(services, Path(folder)) as arm,
    ):
        _some_finished(arm)
        runs = {
            "polls of finished jobs": partial(polls, arm, given.requests, known=False),
            "polls that find nothing new": partial(polls, arm, given.requests, known=True),
        }
        found = measure.interleaved(given.rounds, runs)
    rows = [Figure(f"{name} per second", tuple(one["rate"]), "1/s") for name, one in found.items()]
    rows += [Figure(f"{name}: CPU", tuple(one["cpu_us"]), "µs") for name, one in found.items()]
    with (
        many_files(given.idle + 2000),
        open_services() as services,
        tempfile.TemporaryDirectory() as folder,
        penstock_api(services, Path(folder)) as arm,
    ):
        crowds = [asyncio.run(beside(arm, given.idle)) for _ in range(given.rounds)]
    memory = tuple(one["memory"] for one in crowds)
    rows.append(Figure(f"{given.idle} waiting clients: memory", memory, "MB", at_most=MEMORY_MB))
    slower = [one["slower"] for one in crowds]
    rows.append(ratio("a submit beside them ÷ alone", slower, [1.0] * len(slower), at_most=SLOWER))
    return measure.report("poll", rows, to=given.json)


def _some_finished(arm: PenstockArm) -> None:
    async def run() -> None:
        async with load.session(arm.url, arm.key, connections=8) as client:
            await load.closed_loop(client, load.submit(max_tokens=32), clients=8, requests=200)

    asyncio.run(run())
    wait_stored(arm, 200)
    time.sleep(1)  # their hot copies follow the commit


if __name__ == "__main__":
    sys.exit(main())
