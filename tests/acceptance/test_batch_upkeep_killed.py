"""kill -9 of upkeep while it checks and loads a batch: nothing is lost or doubled, the batch completes."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from core.settings import DatabaseSettings
from models.dialect import Database, open_database
from models.lifecycle import Status
from models.repositories import outbox, releasing
from models.tables import Job, Outbox
from tests.contracts.stores import claim, ending, settle, table
from tests.platform import Platform, running_platform
from tests.services import Services

pytestmark = [pytest.mark.services, pytest.mark.timeout(240)]

LINES = 3000
# Small steps, so that there are many to die between; another takes over soon.
STEPS = {"BATCHES__CHUNK": "20", "BATCHES__LEASE": "2s", "BATCHES__POLL": "200ms"}


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
def platform(services: Services, tmp_path: Path, temporary: Path) -> Iterator[Platform]:
    """An API, and nobody yet who works on batches or runs jobs."""
    with running_platform(services, tmp_path, processes=(), **STEPS) as running:
        running.environment["TMPDIR"] = str(temporary)
        running.start("api")
        until_it_answers(running.url)
        yield running


def until_it_answers(url: str) -> None:
    """Not ready, for there is no worker: but alive."""
    while True:
        try:
            httpx.get(f"{url}/health", timeout=5)
        except httpx.TransportError:
            time.sleep(0.1)  # another process, which only a probe can see
        else:
            return


def submit(client: httpx.Client) -> str:
    lines = []
    for number in range(LINES):
        system = {"role": "system", "content": f"You are assistant {number % 7} of a shop. " * 8}
        messages = [system, {"role": "user", "content": f"where is my order A{number}"}]
        body = {"model": "default", "messages": messages, "max_tokens": 4}
        line = {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        lines.append(json.dumps(line))
    files = {"file": ("in.jsonl", "\n".join(lines).encode())}
    file = client.post("/v1/files", data={"purpose": "batch"}, files=files).raise_for_status().json()
    asked = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch_id: str = client.post("/v1/batches", json=asked).raise_for_status().json()["id"]
    return batch_id


async def loaded(database: Database, least: int) -> None:
    """Returns when so many lines are jobs."""
    while await count(database, Job) < least:  # noqa: ASYNC110
        await asyncio.sleep(0.02)  # another process's tables can only be looked at


async def checked(temporary: Path) -> None:
    """Returns when a check has begun."""
    while not leftovers(temporary):  # noqa: ASYNC110 - another process's files
        await asyncio.sleep(0.01)


def leftovers(temporary: Path) -> list[Path]:
    return list(temporary.glob("penstock-batch-*"))


async def count(database: Database, entity: Any) -> int:
    async with database.read() as connection:
        found = await connection.execute(select(func.count()).select_from(table(entity)))
    return int(found.scalar_one())


async def answer_all(database: Database) -> int:
    """What workers do, in the tables; the number of jobs that they were given."""
    answered = 0
    while True:
        async with database.read() as connection:
            standing = await releasing.look(connection)
            rows = await outbox.candidates(connection, [(lane, 500) for lane in standing.lanes])
        if not rows:
            return answered
        claims = await claim(database, *((row.job_id, row.generation) for row in rows))
        output = {"text": "Yes.", "reasoning": None, "finish_reason": "stop"}
        ends = [ending(one.view, Status.COMPLETED, output=output) for one in claims]
        answered += len(await settle(database, *ends))


async def ended(client: httpx.AsyncClient, batch_id: str) -> dict[str, Any]:
    while True:
        batch: dict[str, Any] = (await client.get(f"/v1/batches/{batch_id}")).raise_for_status().json()
        if batch["status"] in {"completed", "failed", "expired", "cancelled"}:
            return batch
        await asyncio.sleep(0.1)  # the client has nothing to wait on


async def test_a_batch_completes_although_upkeep_is_killed_again_and_again(
    platform: Platform, services: Services, temporary: Path
) -> None:
    key = platform.key("killed")
    database = open_database(DatabaseSettings(url=services.database_url))
    try:
        with platform.client(key) as client:
            batch_id = submit(client)
        platform.start("upkeep")
        await checked(temporary)
        platform.stop("upkeep", signal.SIGKILL)
        for least in (1, LINES // 4, LINES // 2):
            platform.start("upkeep")
            await loaded(database, least)
            platform.stop("upkeep", signal.SIGKILL)
        half = await count(database, Job)
        platform.start("upkeep")
        await loaded(database, LINES)
        jobs, waiting = await count(database, Job), await count(database, Outbox)
        answered = await answer_all(database)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=platform.url, headers=headers, timeout=60) as http:
            batch = await ended(http, batch_id)
            content = (await http.get(f"/v1/files/{batch['output_file_id']}/content")).text
    finally:
        await database.close()

    assert half < LINES
    assert (jobs, waiting, answered) == (LINES, LINES, LINES)
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    assert batch["error_file_id"] is None
    named = [json.loads(line)["custom_id"] for line in content.splitlines()]
    assert named == [f"c{number}" for number in range(LINES)]
    assert leftovers(temporary) == []
