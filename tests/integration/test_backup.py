"""docs/how-to/backup-and-restore.md, tried: what comes back, and that it all goes on."""

import asyncio
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from cli.schema import upgrade
from core.settings import DatabaseSettings, Settings
from models.dialect import Database, open_database
from models.lifecycle import Status
from models.repositories import changes, outbox
from queues.upkeep import Upkeep
from tests.contracts.stores import (
    LEASES,
    OUTBOX,
    TENANT,
    ago,
    ending,
    finished,
    move_time,
    queued,
    read,
    release,
    rows,
    running,
    settle,
)
from tests.fakes.fake_publisher import FakePublisher
from tests.platform_fixtures import migrate
from tests.services import Services

ROOT = Path(__file__).resolve().parents[2]

# As the page has it, for files of that name in the current folder.
SQLITE = 'import sqlite3; sqlite3.connect("var/penstock.db").backup(sqlite3.connect("penstock-backup.db"))'


def address(url: str, name: str) -> str:
    return url.replace("+asyncpg", "").rsplit("/", 1)[0] + f"/{name}"


async def execute(services: Services, statement: str) -> None:
    connection = await asyncpg.connect(address(services.database_url, "postgres"))
    await connection.execute(statement)
    await connection.close()


@pytest.fixture
async def names(services: Services) -> AsyncIterator[tuple[str, str]]:
    """Two empty databases: one to lose, one to restore into."""
    made = [f"backup_{secrets.token_hex(4)}" for _ in range(2)]
    for name in made:
        await execute(services, f'CREATE DATABASE "{name}"')
    yield made[0], made[1]
    for name in made:
        await execute(services, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def opened(services: Services, name: str) -> Database:
    url = services.database_url.rsplit("/", 1)[0] + f"/{name}"
    return open_database(DatabaseSettings(url=url))


@pytest.mark.services
async def test_a_restored_database_has_every_job_and_goes_on(
    services: Services, names: tuple[str, str], tmp_path: Path
) -> None:
    old, new = names
    await asyncio.to_thread(migrate, services.database_url.rsplit("/", 1)[0] + f"/{old}")
    before = opened(services, old)
    done, at_work = await finished(before), await running(before)
    waiting, sent = await queued(before), await queued(before)
    await release(before, sent)
    await before.close()
    dump = tmp_path / "penstock.dump"
    for command in (
        ["pg_dump", "--format=custom", f"--file={dump}", address(services.database_url, old)],
        ["pg_restore", "--exit-on-error", f"--dbname={address(services.database_url, new)}", str(dump)],
    ):
        await asyncio.to_thread(subprocess.run, command, check=True)
    await execute(services, f'DROP DATABASE "{old}" WITH (FORCE)')

    url = services.database_url.rsplit("/", 1)[0] + f"/{new}"
    step = await asyncio.to_thread(upgrade, DatabaseSettings(url=url))
    assert not step.is_needed
    after = opened(services, new)
    # Time passes: the leases of workers that are gone run out, and nobody claims what was released.
    await move_time(after, LEASES, at_work.id, expires_at=ago(seconds=1))
    async with after.begin() as connection:
        await outbox.take_back_all(connection)
    await Upkeep(after, FakePublisher(["tiny"]), Settings(), ["tiny"]).reap()

    assert (await read(after, done.id)).output == {"text": "Hello to you."}
    again = await read(after, at_work.id)
    assert (again.status, again.attempt, again.generation) == (Status.QUEUED, 1, 1)
    states = {row.job_id: row.state for row in await rows(after, OUTBOX)}
    assert states == dict.fromkeys((at_work.id, waiting.id, sent.id), "waiting")
    async with after.read() as connection:
        history = await changes.timeline(connection, TENANT, at_work.id)
    assert [change.reason for change in history or []] == ["submitted", None, "lease_lost"]
    # A worker that lived through it all brings what it was given before: too late.
    assert await settle(after, ending(at_work)) == set()
    await after.close()


async def test_a_copied_sqlite_file_has_every_job(tmp_path: Path) -> None:
    page = (ROOT / "docs/how-to/backup-and-restore.md").read_text()
    assert f"python3 -c '{SQLITE}'" in page
    (tmp_path / "var").mkdir()
    await asyncio.to_thread(migrate, f"sqlite+aiosqlite:///{tmp_path}/var/penstock.db")
    before = open_database(DatabaseSettings(url=f"sqlite+aiosqlite:///{tmp_path}/var/penstock.db"))
    done, waiting = await finished(before), await queued(before)
    command = [sys.executable, "-c", SQLITE]
    await asyncio.to_thread(subprocess.run, command, check=True, cwd=tmp_path)
    await before.close()

    after = open_database(DatabaseSettings(url=f"sqlite+aiosqlite:///{tmp_path}/penstock-backup.db"))

    assert (await read(after, done.id)).output == {"text": "Hello to you."}
    assert (await read(after, waiting.id)).status is Status.QUEUED
    await after.close()
