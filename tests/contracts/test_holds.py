"""Paused and drained models: the relay releases nothing of them, and drained is said when it is true."""

from models.dialect import Database
from models.repositories import fleet, holds
from models.repositories.holds import Hold, ModelActivity
from models.tables import Worker
from tests.contracts.stores import ago, queued, running, table

WORKERS = table(Worker)


async def look(database: Database, *models: str) -> list[ModelActivity]:
    async with database.read() as connection:
        return await holds.activity(connection, models or ("tiny",))


async def put(database: Database, hold: Hold) -> None:
    async with database.begin() as connection:
        await holds.put(database, connection, "tiny", hold)


async def test_a_model_serves_until_it_is_held(database: Database) -> None:
    await queued(database)
    await running(database)
    [before] = await look(database)
    await put(database, Hold.PAUSED)
    [held] = await look(database)

    assert (before.hold, before.queued, before.running) == (None, 1, 1)
    assert held.hold is Hold.PAUSED


async def test_a_hold_can_change_its_kind_and_keeps_its_time(database: Database) -> None:
    await put(database, Hold.PAUSED)
    [first] = await look(database)
    await put(database, Hold.DRAINING)
    [second] = await look(database)

    assert (first.since, second.hold) == (second.since, Hold.DRAINING)


async def test_lifting_a_hold_twice_is_nobodys_mistake(database: Database) -> None:
    await put(database, Hold.PAUSED)
    for _ in range(2):
        async with database.begin() as connection:
            await holds.lift(connection, "tiny")

    async with database.read() as connection:
        assert await holds.held(connection) == frozenset()


async def test_drained_waits_for_the_last_job_and_for_every_worker_to_have_looked(
    database: Database,
) -> None:
    await put(database, Hold.DRAINING)
    [empty] = await look(database)
    async with database.begin() as connection:
        await fleet.report(database, connection, name="w1", slots={"tiny": 1}, held={}, state="ready")
    [unseen] = await look(database)
    async with database.begin() as connection:
        await connection.execute(holds._holds.update().values(since=ago(seconds=5)))
    [seen] = await look(database)
    await running(database)
    [busy] = await look(database)

    assert [one.is_drained for one in (empty, unseen, seen, busy)] == [True, False, True, False]


async def test_the_other_models_are_not_held(database: Database) -> None:
    await put(database, Hold.PAUSED)

    tiny, other = await look(database, "tiny", "other")

    assert (tiny.hold, other.hold) == (Hold.PAUSED, None)
