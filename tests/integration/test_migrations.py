"""The migrations make exactly the tables that the code declares, and can be taken back."""

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, inspect, text
from sqlalchemy.engine import make_url

from cli.schema import upgrade
from core.settings import DatabaseSettings
from models import batch_tables, shift_table, template_table, webhook_tables
from models.dialect import open_database
from models.repositories.schema import applied_revision, latest_revision
from models.tables import Base
from tests.contracts.stores import accept, new_job, read
from tests.services import Services

assert batch_tables
assert shift_table
assert template_table
assert webhook_tables  # their tables are among them
TABLES = set(Base.metadata.tables)


@pytest.fixture(params=["embedded", pytest.param("services", marks=pytest.mark.services)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database that nothing else uses."""
    if request.param == "embedded":
        yield f"sqlite+aiosqlite:///{tmp_path / 'fresh.db'}"
        return
    services: Services = request.getfixturevalue("services")
    name = f"test_{secrets.token_hex(4)}"
    asyncio.run(_execute(services, f'CREATE DATABASE "{name}"'))
    yield make_url(services.database_url).set(database=name).render_as_string(hide_password=False)
    asyncio.run(_execute(services, f'DROP DATABASE "{name}" WITH (FORCE)'))


async def _execute(services: Services, statement: str) -> None:
    address = make_url(services.database_url).set(drivername="postgresql")
    connection = await asyncpg.connect(address.render_as_string(hide_password=False), timeout=5)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture
def config(url: str) -> Config:
    made = Config()
    made.set_main_option("script_location", "migrations")
    made.attributes["database"] = DatabaseSettings(url=url)
    return made


def found(url: str) -> tuple[set[str], str | None]:
    """The tables and the revision of a database."""

    async def look() -> tuple[set[str], str | None]:
        database = open_database(DatabaseSettings(url=url))
        async with database.read() as connection:
            names = await connection.run_sync(_names)
            revision = await applied_revision(connection)
        await database.close()
        return names - {"alembic_version"}, revision

    return asyncio.run(look())


def _names(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


def test_a_fresh_database_was_never_migrated(url: str) -> None:
    assert found(url) == (set(), None)


def test_the_migrations_go_up_and_down_and_up_again(url: str, config: Config) -> None:
    command.upgrade(config, "head")
    first = found(url)
    command.downgrade(config, "base")
    empty = found(url)
    command.upgrade(config, "head")

    assert first == found(url) == (TABLES, latest_revision())
    assert empty == (set(), None)


def test_the_migrations_make_the_tables_that_the_code_declares(config: Config) -> None:
    command.upgrade(config, "head")

    command.check(config)


def test_each_step_down_can_be_taken_up_again(url: str, config: Config) -> None:
    command.upgrade(config, "head")
    command.downgrade(config, "-1")
    command.upgrade(config, "head")

    assert found(url) == (TABLES, latest_revision())


def test_a_schema_that_is_newer_than_the_code_is_left_as_it_is(url: str, config: Config) -> None:
    """A rollback starts the version before, and its containers migrate first."""
    command.upgrade(config, "head")
    stamp(url, "of_the_next_release")

    steps = [upgrade(DatabaseSettings(url=url), check=check) for check in (True, False)]

    assert [step.is_needed for step in steps] == [False, False]
    assert found(url) == (TABLES, "of_the_next_release")


def stamp(url: str, revision: str) -> None:
    async def write() -> None:
        database = open_database(DatabaseSettings(url=url))
        async with database.begin() as connection:
            statement = text("UPDATE alembic_version SET version_num = :revision")
            await connection.execute(statement, {"revision": revision})
        await database.close()

    asyncio.run(write())


def test_an_upgrade_of_the_newest_schema_keeps_the_jobs(url: str, config: Config) -> None:
    command.upgrade(config, "head")
    job = new_job()

    async def round_trip(*, submit: bool) -> str:
        database = open_database(DatabaseSettings(url=url))
        if submit:
            await accept(database, job)
        view = await read(database, job.id)
        await database.close()
        return view.id

    asyncio.run(round_trip(submit=True))
    command.upgrade(config, "head")

    assert asyncio.run(round_trip(submit=False)) == job.id
