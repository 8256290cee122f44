"""A batch of 50,000 lines beside other work: until it is in the database, answered once, and cancelled.

Run: python -m benchmarks.batches [--lines 50000] [--json FILE]
The engine costs nothing. Other submissions go on at a steady rate, before the batch and while it comes.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson
import psutil

from benchmarks import load, measure
from benchmarks.arms import PenstockArm, penstock
from benchmarks.measure import Figure, quantile, resident_mb
from tests.services import open_services

BYTES = 1150  # a line, with its prompt: 50,000 are about 60 MB
PREFIXES = 64
OTHERS = 30.0  # submissions a second
WARM, SECONDS = 3.0, 15.0
IN_DATABASE, MEMORY_MB, SLOWER, CANCELLED = 20.0, 100.0, 2.0, 8.0


def input_file(path: Path, lines: int) -> None:
    systems = [f"You are assistant {n} of a shop. " + "Answer kindly. " * 40 for n in range(PREFIXES)]
    with path.open("wb") as file:
        for number in range(lines):
            system = systems[number * 7919 % PREFIXES]
            room = BYTES - len(system) - 190
            content = f"where is my order A{number}? ".ljust(room, "x")
            messages = [{"role": "system", "content": system}, {"role": "user", "content": content}]
            body = {"model": "default", "messages": messages, "max_tokens": 1}
            line = {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(orjson.dumps(line) + b"\n")


async def upload(client: aiohttp.ClientSession, path: Path) -> str:
    form = aiohttp.FormData({"purpose": "batch"})
    with path.open("rb") as file:
        form.add_field("file", file, filename="in.jsonl")
        return str((await _ask(client, "POST", "/v1/files", data=form))["id"])


async def create(client: aiohttp.ClientSession, file_id: str) -> str:
    asked = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return str((await _ask(client, "POST", "/v1/batches", json=asked))["id"])


async def _ask(client: aiohttp.ClientSession, method: str, path: str, **request: Any) -> dict[str, Any]:
    async with client.request(method, path, **request) as answer:
        document: dict[str, Any] = await answer.json()
        if answer.status >= 400:
            raise RuntimeError(f"{answer.status}: {document}")
        return document


async def until(
    client: aiohttp.ClientSession, batch_id: str, holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """The batch once it is so; at most ten minutes."""
    end = time.monotonic() + 600
    while time.monotonic() < end:
        batch = await _ask(client, "GET", f"/v1/batches/{batch_id}")
        if holds(batch):
            return batch
        if batch["status"] == "failed":
            raise RuntimeError(f"{batch['errors']}")
        await asyncio.sleep(0.1)
    raise TimeoutError(f"{batch}")


async def until_loaded(database: str, batch_id: str, lines: int) -> None:
    connection = await asyncpg.connect(database)
    try:
        statement = "SELECT loaded FROM batches WHERE id = $1"
        while await connection.fetchval(statement, batch_id) < lines:  # noqa: ASYNC110 - another process's
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


class Memory:
    """The most that a process held beyond what it held at the start."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = resident_mb(pid)
        self.grown = 0.0

    async def watch(self) -> None:
        while True:
            self.grown = max(self.grown, resident_mb(self._pid) - self._before)
            await asyncio.sleep(0.05)


@dataclass
class Others:
    """A steady stream of submissions: when each left, and the seconds that it took."""

    client: aiohttp.ClientSession
    sent: list[tuple[float, float]] = field(default_factory=list)

    async def run(self) -> None:
        """Until cancelled."""
        call, began, number = load.submit(max_tokens=1), time.perf_counter(), 0
        async with asyncio.TaskGroup() as tasks:
            while True:
                await asyncio.sleep(max(0.0, began + number / OTHERS - time.perf_counter()))
                tasks.create_task(self._one(call, number))
                number += 1

    async def _one(self, call: load.Call, number: int) -> None:
        left = time.perf_counter()
        await call(self.client, number)
        self.sent.append((left, time.perf_counter() - left))

    def p99(self, since: float, until: float) -> float:
        """Milliseconds, of those that left in between."""
        return 1e3 * quantile([took for left, took in self.sent if since <= left < until], 99)


async def run(arm: PenstockArm, path: Path, lines: int) -> list[Figure]:
    platform = arm.platform
    assert platform is not None  # noqa: S101 - the types' proof
    memory = Memory(platform.processes["api"].pid)
    async with load.session(arm.url, arm.key, connections=100) as client:
        others = Others(client)
        beside = asyncio.create_task(others.run())
        await asyncio.sleep(WARM)
        quiet = time.perf_counter()
        await asyncio.sleep(SECONDS)
        watching = asyncio.create_task(memory.watch())
        began = time.perf_counter()
        file_id = await upload(client, path)
        uploaded = time.perf_counter()
        batch_id = await create(client, file_id)
        await until(client, batch_id, lambda batch: batch["status"] != "validating")
        checked = time.perf_counter()
        await until_loaded(arm.database, batch_id, lines)
        loaded = time.perf_counter()
        await asyncio.sleep(2)  # what left last has come back
        for task in (beside, watching):
            task.cancel()
        await asyncio.gather(beside, watching, return_exceptions=True)
        batch = await until(client, batch_id, lambda batch: batch["completed_at"] is not None)
        ended = time.perf_counter()
        once = await answered_once(client, batch, lines)
        cancelled, listed = await cancel_at_a_third(client, file_id, lines)
    before, meanwhile = others.p99(quiet, began), others.p99(began, loaded)
    return [
        Figure("uploaded", (uploaded - began,), "s"),
        Figure("checked, from its upload on", (checked - uploaded,), "s"),
        Figure("loaded, from its check on", (loaded - checked,), "s"),
        Figure("from the first byte until all lines are jobs", (loaded - began,), "s", at_most=IN_DATABASE),
        Figure("lines a second, from the first byte to the output", (lines / (ended - began),), "1/s"),
        Figure("the API's memory grew by", (memory.grown,), "MB", at_most=MEMORY_MB),
        Figure("other submissions, p99 before", (before,), "ms"),
        Figure(
            "other submissions, p99 while it is uploaded and checked", (others.p99(began, checked),), "ms"
        ),
        Figure("other submissions, p99 while it is loaded", (others.p99(checked, loaded),), "ms"),
        Figure("other submissions, p99 meanwhile", (meanwhile,), "ms"),
        Figure("p99 meanwhile ÷ before", (meanwhile / before,), "x", at_most=SLOWER),
        Figure("lines answered once, in order", (float(once),), "", at_least=1),
        Figure("a cancel at a third is settled within", (cancelled,), "s", at_most=CANCELLED),
        Figure("its lines in output and error file", (listed / lines,), "", at_least=1),
    ]


async def answered_once(client: aiohttp.ClientSession, batch: dict[str, Any], lines: int) -> bool:
    found = await custom_ids(client, batch["output_file_id"])
    return found == [f"c{number}" for number in range(lines)] and batch["error_file_id"] is None


async def custom_ids(client: aiohttp.ClientSession, file_id: str | None) -> list[str]:
    if file_id is None:
        return []
    async with client.get(f"/v1/files/{file_id}/content") as answer:
        return [orjson.loads(line)["custom_id"] async for line in answer.content]


async def cancel_at_a_third(client: aiohttp.ClientSession, file_id: str, lines: int) -> tuple[float, int]:
    """Seconds until it is cancelled with its files written, and the lines in those."""
    batch_id = await create(client, file_id)
    third = lines // 3
    await until(client, batch_id, lambda batch: batch["request_counts"]["completed"] >= third)
    began = time.perf_counter()
    await _ask(client, "POST", f"/v1/batches/{batch_id}/cancel")
    batch = await until(client, batch_id, lambda batch: batch["cancelled_at"] is not None)
    seconds = time.perf_counter() - began
    named = await custom_ids(client, batch["output_file_id"])
    named += await custom_ids(client, batch["error_file_id"])
    return seconds, len(set(named))


def main() -> int:
    parser = measure.parser(__doc__, rounds=1)
    parser.add_argument("--lines", type=int, default=50_000)
    given = parser.parse_args()
    with (
        open_services() as services,
        tempfile.TemporaryDirectory() as folder,
        penstock(services, Path(folder)) as arm,
    ):
        path = Path(folder, "in.jsonl")
        input_file(path, given.lines)
        rows = asyncio.run(run(arm, path, given.lines))
        rows.append(Figure("size of the file", (path.stat().st_size / 1e6,), "MB"))
    rows.append(Figure("cores", (float(psutil.cpu_count() or 0),)))
    return measure.report("batches", rows, to=given.json)


if __name__ == "__main__":
    sys.exit(main())
