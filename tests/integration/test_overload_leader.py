"""The leader's look: what it writes into the audit, and what it forgets of it; on both profiles."""

from dataclasses import replace
from datetime import timedelta

import pytest

from core.settings import Settings, UpkeepSettings
from models.degradation import Level
from models.dialect import Database
from models.repositories import degradation
from models.repositories.degradation import Change
from queues.overload import Overload
from queues.redis import Redis
from queues.upkeep import Upkeep
from tests.contracts.brokers import MODELS
from tests.contracts.stores import ago
from tests.fakes.fake_publisher import FakePublisher

PINS = degradation._pins
CHANGES = degradation._changes


@pytest.fixture
def overload(database: Database, redis: Redis, settings: Settings) -> Overload:
    return Overload(database, redis, settings, ["tiny"])


async def pin(database: Database, level: int) -> None:
    async with database.begin() as connection:
        await degradation.pin(
            database, connection, "tiny", level, lasts=timedelta(hours=1), actor="key_operator"
        )


async def audit(database: Database) -> list[Change]:
    async with database.read() as connection:
        return await degradation.history(connection, limit=50)


async def test_a_pin_that_runs_out_is_in_the_audit_once(database: Database, overload: Overload) -> None:
    await pin(database, 2)
    await overload.look()
    assert overload._states is not None
    state = overload._states["tiny"]
    assert state.level is Level.TEMPLATE
    async with database.begin() as connection:
        await connection.execute(PINS.update().values(expires_at=ago(seconds=5)))
    overload._states = {"tiny": replace(state, pinned_until=state.since)}

    await overload.look()
    await overload.look()

    expired = [change for change in await audit(database) if change.rule == "pin_expired"]
    assert [(change.before, change.actor) for change in expired] == [(2, "policy")]
    assert expired[0].reason == "the level 2 pinned by key_operator until now"


async def test_a_pin_that_is_taken_back_has_not_run_out(database: Database, overload: Overload) -> None:
    await pin(database, 2)
    await overload.look()
    async with database.begin() as connection:
        await degradation.unpin(connection, "tiny")

    await overload.look()

    assert [change for change in await audit(database) if change.rule == "pin_expired"] == []


async def test_the_audit_forgets_what_is_older_than_it_keeps(database: Database, settings: Settings) -> None:
    kept = UpkeepSettings(audit_retention=timedelta(days=30), retention_chunk=2)
    settings = settings.model_copy(update={"upkeep": kept})
    upkeep = Upkeep(database, FakePublisher(MODELS), settings, list(MODELS))
    change = Change("tiny", 0, 1, "waiting", "84 wait", "policy")
    async with database.begin() as connection:
        await degradation.record(connection, [change] * 5)
    async with database.begin() as connection:
        await connection.execute(CHANGES.update().values(at=ago(days=31)))
        await degradation.record(connection, [change])

    await upkeep.forget()

    assert len(await audit(database)) == 1
