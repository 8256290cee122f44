"""What PostgreSQL and SQLite must have in common: the clock, leadership, bells and errors."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from core.errors import StoreUnavailable
from core.settings import DatabaseSettings, Settings
from models.dialect import Database, Leadership, Now, copy_rows, insert_together, open_database
from models.membership import Among, PairAmong
from models.tables import ApiKey, Outbox, Tenant
from tests.contracts.stores import HOUR, ago, now, table

BELL = "tests"
PATIENCE = timedelta(seconds=10)
AT_ONCE = timedelta(0)
SERVICES_ONLY = pytest.mark.parametrize(
    "profile", [pytest.param("services", marks=pytest.mark.services)], indirect=True
)


@pytest.fixture
async def neighbour(database: Database, settings: Settings) -> AsyncIterator[Database]:
    """The same database as another process sees it."""
    opened = open_database(settings.database)
    yield opened
    await opened.close()


async def kill_other_connections(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )


async def test_the_clock_moves_by_its_offset(database: Database) -> None:
    async with database.read() as connection:
        row = (await connection.execute(select(Now(), Now(HOUR), Now(-HOUR)))).one()

    assert (row[1] - row[0], row[0] - row[2]) == (HOUR, HOUR)
    assert abs(row[0] - now()) < timedelta(minutes=1)


async def test_a_transaction_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):
        await add_and_fail(database)

    async with database.read() as connection:
        assert (await connection.execute(select(table(Tenant)))).all() == []


async def add_and_fail(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(table(Tenant).insert().values(id="t", name="n", created_at=now()))
        raise ZeroDivisionError


async def test_copied_rows_are_the_rows(database: Database) -> None:
    tenants = [{"id": f"t{n}", "name": f"größe {n}", "created_at": ago(hours=n)} for n in range(100)]

    async with database.begin() as connection:
        await copy_rows(connection, table(Tenant), tenants)
        await copy_rows(connection, table(Tenant), [])

    async with database.read() as connection:
        found = (await connection.execute(select(table(Tenant)))).mappings().all()
    wanted = [{**tenant, "disabled_at": None, "private_prefixes": False} for tenant in tenants]
    assert sorted(map(dict, found), key=lambda row: row["created_at"], reverse=True) == wanted


async def test_rows_that_were_copied_first_go_with_their_transaction(database: Database) -> None:
    tenants = [{"id": f"t{n}", "name": f"n{n}", "created_at": now()} for n in range(20)]

    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the transaction is what raises
        async with database.begin() as connection:
            await copy_rows(connection, table(Tenant), tenants)
            raise ZeroDivisionError

    async with database.read() as connection:
        assert (await connection.execute(select(table(Tenant)))).all() == []


async def test_rows_of_several_tables_are_inserted_together(database: Database) -> None:
    tenant = {
        "id": "t",
        "name": "größe",
        "created_at": ago(hours=1),
        "disabled_at": None,
        "private_prefixes": False,
    }
    keys = [key(f"k{n}", scopes=["jobs", "admin"][:n]) for n in range(3)]

    async with database.at_once() as connection:
        await insert_together(
            connection, [(table(Tenant), [tenant]), (table(ApiKey), keys), (table(Outbox), [])]
        )

    async with database.read() as connection:
        assert [dict(row) for row in (await connection.execute(select(table(Tenant)))).mappings()] == [tenant]
        found = (await connection.execute(select(table(ApiKey)).order_by(table(ApiKey).c.id))).mappings()
        assert [dict(row) for row in found] == keys


async def test_one_row_that_cannot_be_leaves_none_of_any_table(database: Database) -> None:
    tenant = {"id": "t", "name": "n", "created_at": now()}
    orphan = key("k", tenant_id="nobody")

    # SQLite has no transaction of a single statement here: `at_once` opens one.
    with pytest.raises(IntegrityError):
        async with database.at_once() as connection:
            await insert_together(connection, [(table(Tenant), [tenant]), (table(ApiKey), [orphan])])

    async with database.read() as connection:
        assert (await connection.execute(select(table(Tenant)))).all() == []


@SERVICES_ONLY
async def test_what_is_too_long_is_refused_and_not_cut(database: Database) -> None:
    tenant = {"id": "t" * 65, "name": "n", "created_at": now()}

    with pytest.raises(DBAPIError):
        async with database.at_once() as connection:
            await insert_together(connection, [(table(Tenant), [tenant])])


def key(key_id: str, **changes: Any) -> dict[str, Any]:
    row = {
        "id": key_id,
        "tenant_id": "t",
        "name": "n",
        "secret_hash": "h",
        "scopes": ["jobs"],
        "max_class": "premium",
        "created_at": ago(hours=2),
        "expires_at": None,
        "revoked_at": None,
    }
    return row | changes


async def test_a_database_out_of_reach_is_unavailable() -> None:
    database = open_database(DatabaseSettings(url="postgresql+asyncpg://nobody@127.0.0.1:1/x"))

    with pytest.raises(StoreUnavailable):
        async with database.begin():
            pass
    with pytest.raises(StoreUnavailable):
        async with database.read():
            pass
    await database.close()


async def test_copied_rows_fail_as_inserted_ones_do(database: Database) -> None:
    twins = [{"id": "twin", "name": f"n{n}", "created_at": now()} for n in range(20)]

    with pytest.raises(IntegrityError):
        async with database.begin() as connection:
            await copy_rows(connection, table(Tenant), twins)


@SERVICES_ONLY
async def test_a_copy_on_a_killed_connection_is_an_outage(database: Database, neighbour: Database) -> None:
    rows = [{"id": f"t{n}", "name": f"n{n}", "created_at": now()} for n in range(20)]

    with pytest.raises(StoreUnavailable):  # noqa: PT012 - the transaction is what raises
        async with database.begin() as connection:
            await connection.execute(text("SELECT 1"))
            await kill_other_connections(neighbour)
            await copy_rows(connection, table(Tenant), rows)


@SERVICES_ONLY
@pytest.mark.parametrize("code", ["57P03", "57P01", "53300", "40P01", "40001", "08006"])
async def test_a_moment_without_service_is_unavailable(database: Database, code: str) -> None:
    with pytest.raises(StoreUnavailable):
        await fail_with(database, code)


@SERVICES_ONLY
@pytest.mark.parametrize("code", ["23505", "22P02", "42P01"])
async def test_a_mistake_is_not_an_outage(database: Database, code: str) -> None:
    with pytest.raises(DBAPIError):
        await fail_with(database, code)


async def fail_with(database: Database, code: str) -> None:
    async with database.begin() as connection:
        await connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE='{code}'; END $$"))


async def test_a_ring_is_heard_by_another_process(database: Database, neighbour: Database) -> None:
    assert not await neighbour.wakeups.wait(BELL, AT_ONCE)

    await database.wakeups.ring(BELL)

    assert await neighbour.wakeups.wait(BELL, PATIENCE)
    assert not await neighbour.wakeups.wait(BELL, AT_ONCE)


async def test_a_bell_is_not_another_bell(database: Database, neighbour: Database) -> None:
    await neighbour.wakeups.wait(BELL, AT_ONCE)
    await neighbour.wakeups.wait("other", AT_ONCE)

    await database.wakeups.ring("other")

    assert await neighbour.wakeups.wait("other", PATIENCE)
    assert not await neighbour.wakeups.wait(BELL, AT_ONCE)


async def test_bells_rung_at_once_are_all_heard(database: Database, neighbour: Database) -> None:
    bells = [f"{BELL}{number}" for number in range(5)]
    for bell in bells:
        await neighbour.wakeups.wait(bell, AT_ONCE)

    await asyncio.gather(*(database.wakeups.ring(bell) for bell in bells))

    heard = await asyncio.gather(*(neighbour.wakeups.wait(bell, PATIENCE) for bell in bells))
    assert heard == [True] * 5


async def test_bells_are_listened_to_while_others_are_rung(database: Database, neighbour: Database) -> None:
    bells = [f"{BELL}{number}" for number in range(5)]

    await asyncio.gather(
        *(database.wakeups.wait(bell, AT_ONCE) for bell in bells),
        *(database.wakeups.ring(bell) for bell in bells),
    )
    for bell in bells:
        await database.wakeups.wait(bell, AT_ONCE)
        await neighbour.wakeups.ring(bell)

    heard = await asyncio.gather(*(database.wakeups.wait(bell, PATIENCE) for bell in bells))
    assert heard == [True] * 5


@SERVICES_ONLY
async def test_one_leads_and_the_next_takes_over(database: Database, neighbour: Database) -> None:
    first, second = Leadership(database, "tests"), Leadership(neighbour, "tests")
    other = Leadership(neighbour, "other")

    at_first = [await one.acquire() for one in (first, second, first, other)]
    await first.release()
    afterwards = [await one.acquire() for one in (second, first)]
    await second.release()
    await other.release()

    assert at_first == [True, False, True, True]
    assert afterwards == [True, False]


@SERVICES_ONLY
async def test_a_leader_that_lost_its_connection_does_not_lead(
    database: Database, neighbour: Database
) -> None:
    first, second = Leadership(database, "tests"), Leadership(neighbour, "tests")
    assert await first.acquire()
    await kill_other_connections(neighbour)

    assert await second.acquire()
    with pytest.raises(StoreUnavailable):
        await first.acquire()
    still = await first.acquire()
    await second.release()
    again = await first.acquire()
    await first.release()

    assert (still, again) == (False, True)


async def test_a_lone_process_leads(database: Database) -> None:
    leadership = Leadership(database, "tests")

    assert await leadership.acquire()
    assert await leadership.acquire()
    await leadership.release()
    assert await leadership.acquire()
    await leadership.release()


@pytest.mark.parametrize("count", [0, 1, 500])
async def test_one_statement_finds_the_members_however_many_they_are(database: Database, count: int) -> None:
    rows = [{"id": f"t{n}", "name": f"größe'{n}", "created_at": now()} for n in range(600)]
    wanted = [row["name"] for row in rows[:count]]
    tenants = table(Tenant)

    async with database.begin() as connection:
        await copy_rows(connection, tenants, rows)
        found = await connection.execute(select(tenants.c.name).where(Among(tenants.c.name, wanted)))

    assert sorted(found.scalars()) == sorted(wanted)


async def test_pairs_are_found_as_pairs(database: Database) -> None:
    outbox = table(Outbox)
    rows = [waiting(f"job_{n}", generation=n % 3) for n in range(30)]
    pairs = [("job_0", 0), ("job_1", 0), ("job_2", 2), ("job_99", 0)]  # the second of another generation

    async with database.begin() as connection:
        await copy_rows(connection, outbox, rows)
        found = await connection.execute(
            select(outbox.c.job_id).where(PairAmong(outbox.c.job_id, outbox.c.generation, pairs))
        )

    assert sorted(found.scalars()) == ["job_0", "job_2"]


@pytest.mark.parametrize("profile", ["embedded"], indirect=True)
async def test_sqlite_finds_a_group_by_its_index(database: Database) -> None:
    outbox = table(Outbox)
    conditions = [
        Among(outbox.c.job_id, ["job_1"]),
        PairAmong(outbox.c.job_id, outbox.c.generation, [("job_1", 0)]),
    ]

    for condition in conditions:
        statement = outbox.delete().where(condition).compile(database.engine)
        plan = f"EXPLAIN QUERY PLAN {statement}"
        async with database.read() as connection:
            rows = await connection.exec_driver_sql(plan, ('["job_1"]', "[0]")[: plan.count("?")])
            steps = " ".join(row.detail for row in rows)
        assert "SEARCH outbox" in steps, steps


def waiting(job_id: str, *, generation: int) -> dict[str, Any]:
    return {
        "job_id": job_id,
        "generation": generation,
        "state": "waiting",
        "lane": "m",
        "model": "m",
        "service_class": "standard",
        "tenant_id": "t",
        "rank": 4,
        "cost": 1,
        "prefix_tokens": 0,
        "created_at": now(),
        "attempts": 0,
        "strikes": 0,
    }
