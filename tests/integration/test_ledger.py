"""What a worker writes down, in groups, through its ledger."""

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy.exc import DBAPIError

from core.errors import StoreUnavailable
from core.settings import DatabaseSettings
from models.dialect import Database, open_database
from models.lifecycle import Status
from models.repositories import fleet
from models.repositories.execution import HeldLease
from queues.relay import BELL
from tests.contracts.stores import (
    HOUR,
    JOBS,
    LEASES,
    OUTBOX,
    RESULTS,
    TENANT,
    accept,
    cancelling,
    claim,
    ending,
    give_back,
    new_job,
    queued,
    read,
    rows,
    running,
)
from workers.ledger import Ledger
from workers.runner import GiveBack

DRAINED = GiveBack("drained", excused=True)
CRASHED = GiveBack("engine_unavailable", excused=False)


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database, worker="w1", lease=HOUR)


async def test_a_claim_is_made_in_the_name_of_the_worker(database: Database, ledger: Ledger) -> None:
    job = await queued(database)

    [claimed] = await ledger.claim([(job.id, 0)])

    assert (claimed.view.id, claimed.view.worker, claimed.view.attempt) == (job.id, "w1", 1)
    assert await ledger.extend([job.id]) == [HeldLease(job.id, 1, cancel_requested=False)]


async def test_endings_that_come_together_are_settled_in_one_statement(
    database: Database, ledger: Ledger
) -> None:
    views = [await running(database) for _ in range(20)]

    settled = await asyncio.gather(*(ledger.settle(ending(view)) for view in views))

    assert [one and one[0] for one in settled] == [3] * 20
    assert len({one and one[1] for one in settled}) == 1  # one reading of the database's clock
    assert len(await rows(database, RESULTS)) == 20


async def test_each_ending_of_a_group_has_its_own_outcome(database: Database, ledger: Ledger) -> None:
    stale = await running(database)
    await give_back(database, stale)
    [current] = await claim(database, (stale.id, 1))
    stopped, failed = await cancelling(database), await running(database)

    outcomes = await asyncio.gather(
        ledger.settle(ending(stale, output={"text": "stale"})),
        ledger.settle(ending(current.view, output={"text": "right"})),
        ledger.settle(ending(stopped, Status.CANCELLED)),
        ledger.settle(ending(failed, Status.FAILED, error={"code": "engine_refused"})),
    )

    assert [outcome is None for outcome in outcomes] == [True, False, False, False]
    assert (await read(database, stale.id)).output == {"text": "right"}
    assert (await read(database, stopped.id)).status is Status.CANCELLED


async def test_an_ending_that_cannot_be_stored_fails_alone(database: Database, ledger: Ledger) -> None:
    good, bad, also = [await running(database) for _ in range(3)]
    too_old = ending(bad, expires_at=None)

    outcomes = await asyncio.gather(
        *(ledger.settle(one) for one in (ending(good), too_old, ending(also))), return_exceptions=True
    )

    assert isinstance(outcomes[1], DBAPIError)
    assert {row.job_id for row in await rows(database, RESULTS)} == {good.id, also.id}
    assert (await read(database, bad.id)).status is Status.RUNNING


async def test_returns_that_come_together_keep_their_excuses(database: Database, ledger: Ledger) -> None:
    drained, crashed = await running(database), await running(database)
    stopped = await cancelling(database)

    returned = await asyncio.gather(
        ledger.give_back(drained.id, 1, DRAINED),
        ledger.give_back(crashed.id, 1, CRASHED),
        ledger.give_back(stopped.id, 1, DRAINED),
    )

    found = {row.id: (row.status, row.excused) for row in await rows(database, JOBS)}
    assert returned == [True, True, False]
    assert found == {drained.id: ("queued", 1), crashed.id: ("queued", 0), stopped.id: ("cancelling", 0)}
    assert {row.job_id for row in await rows(database, OUTBOX)} == {drained.id, crashed.id}
    assert [row.job_id for row in await rows(database, LEASES)] == [stopped.id]


async def test_a_returned_job_wakes_the_relay(database: Database, ledger: Ledger) -> None:
    job = await running(database)
    await database.wakeups.wait(BELL, timedelta(0))

    await ledger.give_back(job.id, 1, DRAINED)

    assert await database.wakeups.wait(BELL, timedelta(seconds=10))


async def test_a_worker_that_has_room_wakes_the_relay(database: Database, ledger: Ledger) -> None:
    await database.wakeups.wait(BELL, timedelta(0))

    await ledger.ask_for_more()

    assert await database.wakeups.wait(BELL, timedelta(seconds=10))


async def test_a_revoked_job_is_cancelled(database: Database, ledger: Ledger) -> None:
    job = await queued(database)

    await ledger.cancel(TENANT, job.id, keep=HOUR)

    assert (await read(database, job.id)).status is Status.CANCELLED


async def test_a_heartbeat_shows_the_worker_until_it_signs_off(database: Database, ledger: Ledger) -> None:
    await ledger.heartbeat(slots={"tiny": 2}, held={"tiny": 1}, state="ready", detail="")
    async with database.read() as connection:
        [worker] = await fleet.alive(connection, within=HOUR)

    await ledger.sign_off()

    assert (worker.name, worker.slots, worker.held) == ("w1", {"tiny": 2}, {"tiny": 1})
    async with database.read() as connection:
        assert await fleet.alive(connection, within=HOUR) == []


async def test_two_workers_never_run_the_same_job(database: Database, ledger: Ledger) -> None:
    jobs = [new_job() for _ in range(30)]
    await accept(database, *jobs)
    wanted = [(job.id, 0) for job in jobs]
    other = Ledger(database, worker="w2", lease=HOUR)

    groups = await asyncio.gather(ledger.claim(wanted), other.claim(wanted[::-1]), ledger.claim(wanted[:9]))

    assert sorted(one.view.id for group in groups for one in group) == sorted(job.id for job in jobs)


async def test_a_database_out_of_reach_is_said_to_everyone_who_waits() -> None:
    database = open_database(DatabaseSettings(url="postgresql+asyncpg://nobody@127.0.0.1:1/x"))
    ledger = Ledger(database, worker="w1", lease=HOUR)

    outcomes = await asyncio.gather(
        *(ledger.give_back(f"job_{n}", 1, DRAINED) for n in range(3)), return_exceptions=True
    )
    await database.close()

    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
