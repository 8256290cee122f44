"""Upkeep: what happens although nobody asks, done by one process at a time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from core.settings import Settings, UpkeepSettings
from models.dialect import Database, Leadership, open_database
from models.lifecycle import Status
from models.repositories import fleet
from models.repositories.submission import NewJob
from models.views import JobView
from queues.relay import BELL
from queues.upkeep import Upkeep
from tests.contracts.brokers import MODELS
from tests.contracts.stores import (
    HOUR,
    JOBS,
    LEASES,
    OUTBOX,
    OVER,
    RESULTS,
    ago,
    cancelling,
    claim,
    finished,
    give_back,
    move_time,
    queued,
    read,
    release,
    rows,
    running,
)
from tests.fakes.fake_publisher import FakePublisher

PATIENCE = timedelta(seconds=10)
SERVICES_ONLY = pytest.mark.parametrize(
    "profile", [pytest.param("services", marks=pytest.mark.services)], indirect=True
)


@pytest.fixture
def fake() -> FakePublisher:
    return FakePublisher(MODELS)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"upkeep": UpkeepSettings(reap_every=timedelta(milliseconds=1), retention_chunk=2)}
    )


@pytest.fixture
def upkeep(database: Database, fake: FakePublisher, settings: Settings) -> Upkeep:
    return Upkeep(database, fake, settings, list(MODELS))


@pytest.fixture
async def neighbour(database: Database, settings: Settings) -> AsyncIterator[Database]:
    opened = open_database(settings.database)
    yield opened
    await opened.close()


async def last_attempt(database: Database, *, excused: int = 0, lease: timedelta = OVER) -> JobView:
    """A job whose third attempt that counts has lost its lease."""
    view = await running(database)
    for attempt in range(1, 3 + excused):
        await give_back(database, view, excused=attempt <= excused)
        [again] = await claim(database, (view.id, attempt), lease=lease)
        view = again.view
    return view


async def test_a_lost_job_waits_again(database: Database, upkeep: Upkeep) -> None:
    lost, kept = await running(database, lease=OVER), await running(database)

    reaped = await upkeep.reap()

    view = await read(database, lost.id)
    assert reaped == 1
    assert (view.status, view.generation, view.attempt, view.excused) == (Status.QUEUED, 1, 1, 0)
    assert [row.job_id for row in await rows(database, OUTBOX)] == [lost.id]
    assert [row.job_id for row in await rows(database, LEASES)] == [kept.id]


async def test_a_job_that_was_lost_in_every_attempt_fails(database: Database, upkeep: Upkeep) -> None:
    poison = await last_attempt(database)

    await upkeep.reap()

    view = await read(database, poison.id)
    assert view.status is Status.FAILED
    assert view.error is not None
    assert view.error["code"] == "attempts_exhausted"
    assert await rows(database, LEASES) == []
    assert await rows(database, OUTBOX) == []


async def test_an_excused_attempt_leaves_another(database: Database, upkeep: Upkeep) -> None:
    job = await running(database)
    for generation in range(1, 4):
        await give_back(database, job, excused=True)
        [again] = await claim(database, (job.id, generation), lease=OVER)
        job = again.view

    await upkeep.reap()

    view = await read(database, job.id)
    assert (view.status, view.attempt, view.excused) == (Status.QUEUED, 4, 3)


async def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(database: Database, upkeep: Upkeep) -> None:
    job = await cancelling(database, lease=OVER)

    await upkeep.reap()

    view = await read(database, job.id)
    assert (view.status, view.output, view.error) == (Status.CANCELLED, None, None)
    assert await rows(database, LEASES) == []


async def test_a_round_reaps_all_kinds_together(database: Database, upkeep: Upkeep) -> None:
    again, poison = await running(database, lease=OVER), await last_attempt(database)
    stopped = await cancelling(database, lease=OVER)

    reaped = [await upkeep.reap() for _ in range(2)]

    found = {row.id: row.status for row in await rows(database, JOBS)}
    assert reaped == [3, 0]
    assert found == {again.id: "queued", poison.id: "failed", stopped.id: "cancelled"}


async def test_a_reaped_job_wakes_the_relay(database: Database, upkeep: Upkeep, neighbour: Database) -> None:
    await running(database, lease=OVER)
    await neighbour.wakeups.wait(BELL, timedelta(0))

    await upkeep.reap()

    assert await neighbour.wakeups.wait(BELL, PATIENCE)


async def test_a_late_job_expires(database: Database, upkeep: Upkeep) -> None:
    late = await queued(database, queue_deadline=ago(seconds=1))
    await queued(database)

    expired = await upkeep.expire()

    assert expired == 1
    assert (await read(database, late.id)).status is Status.EXPIRED


async def released_long_ago(database: Database) -> NewJob:
    job = await queued(database)
    await release(database, job)
    await move_time(database, OUTBOX, job.id, released_at=ago(minutes=5))
    return job


async def state(database: Database, job: NewJob) -> str:
    [row] = await rows(database, OUTBOX, job.id)
    found: str = row.state
    return found


def let_deficits_age(upkeep: Upkeep, by: timedelta = HOUR) -> None:
    upkeep._deficit_since = {model: since - by for model, since in upkeep._deficit_since.items()}


async def test_a_release_that_the_broker_lost_is_taken_back_once_the_deficit_lasts(
    database: Database, upkeep: Upkeep
) -> None:
    job = await released_long_ago(database)

    at_once = await upkeep.reconcile()
    before = await state(database, job)
    let_deficits_age(upkeep)
    later = await upkeep.reconcile()

    assert (at_once, before) == (0, "released")
    assert (later, await state(database, job)) == (1, "waiting")


async def test_a_deficit_that_went_away_is_forgotten(
    database: Database, upkeep: Upkeep, fake: FakePublisher
) -> None:
    job = await released_long_ago(database)
    await upkeep.reconcile()
    let_deficits_age(upkeep)
    fake.ready["tiny", "standard"] = 1
    await upkeep.reconcile()
    fake.lose_everything()

    taken = await upkeep.reconcile()

    assert (taken, await state(database, job)) == (0, "released")


async def test_what_the_broker_or_a_worker_holds_is_not_lost(
    database: Database, upkeep: Upkeep, fake: FakePublisher
) -> None:
    for _ in range(2):
        job = await released_long_ago(database)
    fake.ready["tiny", "premium"] = 1
    async with database.begin() as connection:
        await fleet.report(database, connection, name="w", slots={}, held={"tiny": 1}, state="ready")
    await upkeep.reconcile()
    let_deficits_age(upkeep)

    assert await upkeep.reconcile() == 0
    assert await state(database, job) == "released"


async def test_finished_jobs_are_forgotten_chunk_by_chunk(database: Database, upkeep: Upkeep) -> None:
    for _ in range(5):
        await finished(database, expires_at=ago(seconds=1))
    kept = await finished(database)

    assert await upkeep.forget() == 5
    assert [row.job_id for row in await rows(database, RESULTS)] == [kept.id]


class Running:
    """Upkeep in the background; rings when it has reaped something."""

    def __init__(self, upkeep: Upkeep) -> None:
        self._task = asyncio.create_task(upkeep.run())

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def test_upkeep_reaps_expires_and_forgets_by_itself(database: Database, upkeep: Upkeep) -> None:
    old = await finished(database, expires_at=ago(seconds=1))
    late = await queued(database, queue_deadline=ago(seconds=1))
    lost = await running(database, lease=OVER)

    started = Running(upkeep)
    await until_statuses(database, {late.id: "expired", lost.id: "queued"}, without=old.id)
    await started.stop()

    assert len(await rows(database, RESULTS)) == 1


async def test_upkeep_goes_on_when_the_broker_is_away(
    database: Database, upkeep: Upkeep, fake: FakePublisher
) -> None:
    fake.is_down = True
    started = Running(upkeep)
    first = await running(database, lease=OVER)
    await until_statuses(database, {first.id: "queued"})
    second = await running(database, lease=OVER)

    await until_statuses(database, {first.id: "queued", second.id: "queued"})
    await started.stop()

    assert await rows(database, LEASES) == []


async def until_statuses(database: Database, wanted: dict[str, str], *, without: str = "") -> None:
    """Only the table tells when a loop in the background has done its work."""
    found: dict[str, Any] = {}
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while not (wanted.items() <= found.items() and without not in found):
            found = {row.id: row.status for row in await rows(database, JOBS)}


@SERVICES_ONLY
async def test_only_the_leader_works(
    database: Database, neighbour: Database, fake: FakePublisher, settings: Settings
) -> None:
    first, second = (Upkeep(of, fake, settings, list(MODELS)) for of in (database, neighbour))
    led = await first._round((first.reap,))
    await running(database, lease=OVER)

    followed = await second._round((second.reap,))
    left = len(await rows(database, LEASES))
    again = await first._round((first.reap,))
    await first._leadership.release()

    assert (led, followed, again) == (True, False, True)
    assert (left, len(await rows(database, LEASES))) == (1, 0)


@SERVICES_ONLY
async def test_the_other_takes_over_when_the_leader_goes(
    database: Database, neighbour: Database, fake: FakePublisher, settings: Settings
) -> None:
    leader = Leadership(database, f"{settings.broker.namespace}.upkeep")
    assert await leader.acquire()
    job = await running(database, lease=OVER)
    waiting = Running(Upkeep(neighbour, fake, settings, list(MODELS)))
    held = await read(database, job.id)

    await leader.release()
    await until_statuses(database, {job.id: "queued"})
    await waiting.stop()
    free = await leader.acquire()
    await leader.release()

    assert held.status is Status.RUNNING
    assert free
