import asyncio
from datetime import timedelta
from typing import Any

import pytest

from models.dialect import Database
from models.lifecycle import TERMINAL, Status
from models.repositories import execution, jobs
from models.repositories.jobs import Change
from tests.contracts.stores import (
    FEEDBACK,
    HOUR,
    LEASES,
    OUTBOX,
    PAYLOADS,
    RESULTS,
    TAGS,
    TENANT,
    ago,
    cancel,
    cancelling,
    claim,
    finished,
    meanwhile,
    now,
    queued,
    read,
    release,
    rows,
    running,
)


async def change(database: Database, job_id: str, *, tenant_id: str = TENANT, **wanted: Any) -> bool:
    async with database.begin() as connection:
        return await jobs.change(database, connection, tenant_id, job_id, Change(**wanted))


async def erase(database: Database, job_id: str, *, tenant_id: str = TENANT) -> bool:
    async with database.begin() as connection:
        return await jobs.erase(connection, tenant_id, job_id)


async def test_a_queued_job_is_cancelled_at_once(database: Database) -> None:
    job = await queued(database)

    assert await cancel(database, job.id)

    view = await read(database, job.id)
    assert (view.status, view.version, view.output, view.error) == (Status.CANCELLED, 2, None, None)
    assert view.finished_at is not None
    assert view.expires_at is not None
    assert await rows(database, OUTBOX) == []
    assert await claim(database, (job.id, 0)) == []


async def test_a_running_job_is_asked_to_stop(database: Database) -> None:
    job = await running(database)

    assert await cancel(database, job.id)

    view = await read(database, job.id)
    [lease] = await rows(database, LEASES)
    assert (view.status, view.version, view.finished_at) == (Status.CANCELLING, 3, None)
    assert lease.cancel_requested
    assert await rows(database, RESULTS) == []


async def test_a_job_is_cancelled_once(database: Database) -> None:
    ended, stopping = await queued(database), await cancelling(database)
    await cancel(database, ended.id)

    again = [await cancel(database, job_id) for job_id in (ended.id, stopping.id, "job_unknown")]

    assert again == [False, False, False]
    assert len(await rows(database, RESULTS)) == 1


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.FAILED])
async def test_a_finished_job_is_not_cancelled(database: Database, status: Status) -> None:
    job = await finished(database, status)

    assert not await cancel(database, job.id)
    assert await read(database, job.id) == job


async def test_a_job_that_is_given_back_in_this_moment_is_cancelled(database: Database) -> None:
    job = await running(database)

    async with asyncio.timeout(30), database.begin() as worker:
        await execution.give_back(database, worker, [(job.id, job.attempt)], excused=True)
        async with meanwhile(database, cancel(database, job.id)) as cancelled:
            await worker.commit()
            changed = await cancelled

    assert changed
    assert (await read(database, job.id)).status is Status.CANCELLED
    assert await rows(database, OUTBOX) == []


async def test_a_job_that_is_claimed_in_this_moment_is_asked_to_stop(database: Database) -> None:
    job = await queued(database)

    async with asyncio.timeout(30), database.begin() as worker:
        await execution.claim(worker, [(job.id, 0)], worker="w1", lease=HOUR)
        async with meanwhile(database, cancel(database, job.id)) as cancelled:
            await worker.commit()
            changed = await cancelled

    assert changed
    assert (await read(database, job.id)).status is Status.CANCELLING
    assert [lease.cancel_requested for lease in await rows(database, LEASES)] == [True]


async def test_a_changed_job_waits_again_under_a_new_generation(database: Database) -> None:
    job = await queued(database, priority=5)
    await release(database, job)
    deadline = now() + HOUR

    changed = await change(database, job.id, priority=9, deadline=deadline, sets_deadline=True)

    view = await read(database, job.id)
    [row] = await rows(database, OUTBOX)
    assert changed
    assert (view.priority, view.deadline, view.generation, view.version) == (9, deadline, 1, 2)
    assert (row.rank, row.deadline, row.expires_at, row.generation) == (0, deadline, deadline, 1)
    assert (row.state, row.released_at) == ("waiting", None)
    assert await claim(database, (job.id, 0)) == []
    assert len(await claim(database, (job.id, 1))) == 1


async def test_a_deadline_can_be_cleared_and_the_longest_wait_stays(database: Database) -> None:
    longest = now() + HOUR
    job = await queued(database, deadline=now() + timedelta(minutes=1), queue_deadline=longest)

    await change(database, job.id, sets_deadline=True)

    [row] = await rows(database, OUTBOX)
    assert (row.deadline, row.expires_at) == (None, longest)


async def test_a_scheduled_job_stays_scheduled_when_it_changes(database: Database) -> None:
    start = now() + HOUR
    job = await queued(database, not_before=start)

    await change(database, job.id, priority=0)

    [row] = await rows(database, OUTBOX)
    assert (row.state, row.available_at, row.rank) == ("scheduled", start, 9)


async def test_new_metadata_leave_the_place_in_the_queue_alone(database: Database) -> None:
    job = await queued(database, metadata={"old": "1"})
    await release(database, job)

    await change(database, job.id, metadata={"new": "2"})

    view = await read(database, job.id)
    assert (view.metadata, view.generation, view.version) == ({"new": "2"}, 0, 2)
    assert [row.state for row in await rows(database, OUTBOX)] == ["released"]


async def test_only_a_queued_job_is_changed(database: Database) -> None:
    others = [await running(database), await cancelling(database), await finished(database)]

    changed = [await change(database, job.id, priority=9, metadata={"a": "b"}) for job in others]

    assert changed == [False, False, False]
    assert await rows(database, OUTBOX) == []
    assert {(await read(database, job.id)).priority for job in others} == {5}


async def test_an_erased_job_is_a_tombstone(database: Database) -> None:
    job = await finished(database, metadata={"a": "b"}, tags=("t",), request={"prompt": "secret"})

    assert await erase(database, job.id)

    view = await read(database, job.id)
    [payload] = await rows(database, PAYLOADS)
    assert (view.status, view.output, view.metadata, view.tags) == (Status.COMPLETED, None, {}, [])
    assert view.erased_at is not None
    assert view.version == job.version + 1
    assert payload.request == {}
    assert await rows(database, TAGS) == []
    async with database.read() as connection:
        assert await jobs.read_request(connection, TENANT, job.id) is None


async def test_only_a_finished_job_is_erased(database: Database) -> None:
    live = [await queued(database), await running(database), await cancelling(database)]

    erased = [await erase(database, job.id) for job in live]

    assert erased == [False, False, False]
    assert {str(row.request["prompt"]) for row in await rows(database, PAYLOADS)} == {"Hello."}


async def test_the_last_word_of_feedback_counts(database: Database) -> None:
    job = await finished(database)

    for score, comment in ((1, "good"), (-1, None)):
        async with database.begin() as connection:
            await jobs.give_feedback(
                database, connection, job.tenant_id, job.id, score=score, comment=comment
            )

    [row] = await rows(database, FEEDBACK)
    assert (row.job_id, row.score, row.comment) == (job.id, -1, None)


async def test_another_tenant_changes_nothing(database: Database) -> None:
    waiting, runs, done = await queued(database), await running(database), await finished(database)

    changed = [
        *[await cancel(database, job.id, tenant_id="other") for job in (waiting, runs, done)],
        await change(database, waiting.id, tenant_id="other", priority=9, metadata={"a": "b"}),
        await erase(database, done.id, tenant_id="other"),
    ]

    assert changed == [False] * 5
    assert (await read(database, waiting.id)).version == 1
    assert (await read(database, runs.id)).version == 2
    assert await read(database, done.id) == done


async def test_every_terminal_job_has_exactly_one_result(database: Database) -> None:
    for status in (Status.COMPLETED, Status.FAILED):
        await finished(database, status)
    await cancel(database, (await queued(database)).id)
    await queued(database, queue_deadline=ago(seconds=1))
    async with database.begin() as connection:
        await jobs.expire(connection, keep=HOUR, limit=10)

    results = await rows(database, RESULTS)

    assert len({row.job_id for row in results}) == len(results) == len(TERMINAL)
