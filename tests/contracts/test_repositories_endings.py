import asyncio
from datetime import timedelta

import pytest

from models.dialect import Database
from models.lifecycle import Status
from models.repositories import execution
from tests.contracts.stores import (
    HOUR,
    JOBS,
    LEASES,
    OUTBOX,
    OVER,
    RESULTS,
    cancelling,
    claim,
    ending,
    give_back,
    meanwhile,
    new_job,
    queued,
    read,
    rows,
    running,
    settle,
)


async def test_an_ending_is_recorded_with_everything_it_says(database: Database) -> None:
    job = await running(database)
    said = {
        "output": {"text": "Grüße, 世界 🌍 \u0000"},
        "usage": {"total_tokens": 3},
        "timings": {"run_ms": 1.5},
        "expires_at": job.created_at + HOUR,
    }

    async with database.begin() as connection:
        settled = await execution.settle(connection, [ending(job, **said)])

    view = await read(database, job.id)
    assert settled == {(job.id, 1): (view.version, view.finished_at)}
    assert (view.status, view.version, view.is_finished) == (Status.COMPLETED, 3, True)
    assert {name: getattr(view, name) for name in said} == said
    assert view.error is None
    assert await rows(database, LEASES) == []


async def test_mixed_endings_are_settled_in_one_call(database: Database) -> None:
    done, failed, also = [await running(database) for _ in range(3)]
    stopped = await cancelling(database)
    error = {"code": "engine_refused", "message": "no"}
    endings = [
        ending(stopped, Status.CANCELLED),
        ending(done),
        ending(failed, Status.FAILED, error=error),
        ending(also),
    ]

    settled = await settle(database, *endings)

    assert settled == {(one.job_id, 1) for one in endings}
    found = {row.id: row.status for row in await rows(database, JOBS)}
    assert found == {done.id: "completed", failed.id: "failed", also.id: "completed", stopped.id: "cancelled"}
    assert (await read(database, failed.id)).error == error
    assert (await read(database, stopped.id)).output is None
    assert len(await rows(database, RESULTS)) == 4


async def test_an_attempt_that_lost_its_job_is_fenced_off(database: Database) -> None:
    stale = await running(database)
    await give_back(database, stale)
    queued_again = await settle(database, ending(stale))
    [current] = await claim(database, (stale.id, 1), worker="w2")

    while_running = await settle(database, ending(stale))
    right = await settle(database, ending(current.view, output={"text": "second"}))
    afterwards = await settle(database, ending(stale), ending(current.view, Status.FAILED))

    assert (queued_again, while_running, afterwards) == (set(), set(), set())
    assert right == {(stale.id, 2)}
    [result] = await rows(database, RESULTS)
    assert (result.attempt, result.output) == (2, {"text": "second"})


async def test_a_stale_ending_beside_the_right_one_is_fenced_off_alone(database: Database) -> None:
    stale = await running(database)
    await give_back(database, stale)
    [current] = await claim(database, (stale.id, 1))
    other = await running(database)

    settled = await settle(
        database,
        ending(stale, output={"text": "first"}),
        ending(current.view, output={"text": "second"}),
        ending(other),
    )

    assert settled == {(stale.id, 2), (other.id, 1)}
    assert (await read(database, stale.id)).output == {"text": "second"}


async def test_an_ending_given_twice_is_recorded_once(database: Database) -> None:
    job = await running(database)

    settled = await settle(database, ending(job), ending(job, Status.FAILED), ending(job))

    assert settled == {(job.id, 1)}
    [result] = await rows(database, RESULTS)
    assert (await read(database, job.id)).status is Status.COMPLETED
    assert result.output is not None


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED, Status.CANCELLED])
async def test_a_job_that_nobody_runs_has_no_attempt_to_end(database: Database, status: Status) -> None:
    job = await queued(database)

    settled = await settle(database, ending(await read(database, job.id), status))

    assert settled == set()
    assert (await read(database, job.id)).status is Status.QUEUED
    assert await rows(database, RESULTS) == []


async def test_a_running_job_is_not_cancelled_by_its_worker_alone(database: Database) -> None:
    job = await running(database)

    assert await settle(database, ending(job, Status.CANCELLED)) == set()
    assert (await read(database, job.id)).status is Status.RUNNING


async def test_an_answer_that_was_finished_before_the_cancel_arrived_stands(database: Database) -> None:
    job = await cancelling(database)

    assert await settle(database, ending(job)) == {(job.id, 1)}
    assert (await read(database, job.id)).output == {"text": "Hello to you."}


@pytest.mark.parametrize("excused", [True, False])
async def test_a_job_that_was_given_back_waits_under_a_new_generation(
    database: Database, excused: bool
) -> None:
    job = await running(database, priority=8, deadline=None)

    returned = await give_back(database, job, excused=excused)

    view = await read(database, job.id)
    [row] = await rows(database, OUTBOX)
    assert returned == [job.id]
    assert (view.status, view.generation, view.version) == (Status.QUEUED, 1, 3)
    assert (view.attempt, view.excused) == (1, int(excused))
    assert (row.job_id, row.generation, row.state, row.rank) == (job.id, 1, "waiting", 1)
    assert (row.created_at, row.released_at) == (job.created_at, None)
    assert await rows(database, LEASES) == []


async def test_a_job_given_back_with_a_delay_is_scheduled(database: Database) -> None:
    job = await running(database)

    await give_back(database, job, delay=HOUR)

    [row] = await rows(database, OUTBOX)
    assert row.state == "scheduled"
    assert row.available_at > job.created_at + timedelta(minutes=59)


async def test_a_job_that_is_being_cancelled_is_not_given_back(database: Database) -> None:
    stopped, other = await cancelling(database, lease=OVER), await running(database)

    returned = await give_back(database, stopped, other)

    assert returned == [other.id]
    assert (await read(database, stopped.id)).status is Status.CANCELLING
    assert [row.job_id for row in await rows(database, OUTBOX)] == [other.id]


async def test_a_job_that_was_not_given_back_keeps_its_lease(database: Database) -> None:
    stopped, other = await cancelling(database), await running(database)

    await give_back(database, stopped, other)

    assert [row.job_id for row in await rows(database, LEASES)] == [stopped.id]


async def test_a_stale_attempt_gives_nothing_back(database: Database) -> None:
    stale = await running(database)
    await give_back(database, stale)
    await claim(database, (stale.id, 1), worker="w2")

    assert await give_back(database, stale) == []
    assert (await read(database, stale.id)).status is Status.RUNNING
    assert len(await rows(database, LEASES)) == 1


async def test_the_reaper_and_a_late_ending_do_not_wait_for_each_other(database: Database) -> None:
    job = await running(database, lease=OVER)

    async with asyncio.timeout(30), database.begin() as reaper:
        lost = await execution.expired_leases(reaper, limit=10)
        async with meanwhile(database, settle(database, ending(job))) as late:
            await execution.give_back(
                database, reaper, [(one.job_id, one.attempt) for one in lost], excused=False
            )
            await reaper.commit()
            fenced = await late

    assert fenced == set()
    assert (await read(database, job.id)).status is Status.QUEUED


async def test_the_reaper_passes_over_a_job_that_is_being_settled(database: Database) -> None:
    if database.is_sqlite:
        return  # one writer: the reaper waits
    job = await running(database, lease=OVER)

    async with asyncio.timeout(30), database.begin() as worker:
        assert await execution._move(worker, Status.COMPLETED, [execution._result_row(ending(job))])
        async with database.begin() as reaper:
            assert await execution.expired_leases(reaper, limit=10) == []


async def test_a_job_runs_as_often_as_it_is_given_back(database: Database) -> None:
    job = new_job()
    view = await running(database, id=job.id)
    for generation in range(1, 4):
        await give_back(database, view, excused=True)
        [again] = await claim(database, (job.id, generation))
        view = again.view

    assert (view.attempt, view.excused, view.generation) == (4, 3, 3)
