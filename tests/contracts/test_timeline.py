"""The timeline: whoever changes a job, the change is written down with it."""

from datetime import timedelta
from typing import Any

from sqlalchemy import event

from core.settings import Settings
from models.dialect import Database
from models.lifecycle import Status
from models.repositories import changes, execution, jobs
from models.repositories.changes import Change
from models.repositories.jobs import Change as Patch
from models.tables import JobChange
from queues.upkeep import Upkeep
from tests.contracts.stores import (
    HOUR,
    OVER,
    TENANT,
    ago,
    cancel,
    claim,
    ending,
    finished,
    give_back,
    move_time,
    now,
    queued,
    rows,
    running,
    settle,
    table,
)
from tests.fakes.fake_publisher import FakePublisher

CHANGES = table(JobChange)
RESULTS_OVER = {"expires_at": ago(seconds=1)}


async def timeline(database: Database, job_id: str, tenant_id: str = TENANT) -> list[Change] | None:
    async with database.read() as connection:
        return await changes.timeline(connection, tenant_id, job_id)


async def told(database: Database, job_id: str) -> list[tuple[str, int, str | None, str | None]]:
    found = await timeline(database, job_id)
    assert found is not None
    assert [change.at for change in found] == sorted(change.at for change in found)
    assert [change.version for change in found] == list(range(1, len(found) + 1))
    return [(c.status.value, c.attempt, c.worker, c.reason) for c in found]


async def test_a_job_that_runs_once_has_three_changes(database: Database) -> None:
    job = await finished(database)

    assert await told(database, job.id) == [
        ("queued", 0, None, "submitted"),
        ("running", 1, "w1", None),
        ("completed", 1, "w1", None),
    ]


async def test_every_attempt_says_which_worker_had_it_and_why_it_ended(
    database: Database, settings: Settings
) -> None:
    job = await running(database)
    await give_back(database, job, excused=True)
    await claim(database, (job.id, 1), worker="w2", lease=OVER)
    await Upkeep(database, FakePublisher(["tiny"]), settings, ["tiny"]).reap()
    [third] = await claim(database, (job.id, 2), worker="w3")
    error = {"code": "attempts_exhausted", "message": "no"}
    await settle(database, ending(third.view, Status.FAILED, error=error))

    assert await told(database, job.id) == [
        ("queued", 0, None, "submitted"),
        ("running", 1, "w1", None),
        ("queued", 1, "w1", None),
        ("running", 2, "w2", None),
        ("queued", 2, "w2", "lease_lost"),
        ("running", 3, "w3", None),
        ("failed", 3, "w3", "attempts_exhausted"),
    ]


async def test_what_its_owner_did_is_in_it(database: Database) -> None:
    job = await queued(database)
    async with database.begin() as connection:
        await jobs.change(database, connection, TENANT, job.id, Patch(priority=9))
    await claim(database, (job.id, 1))
    await cancel(database, job.id)
    async with database.begin() as connection:
        await execution.settle(
            connection, [execution.Ending(job.id, 1, Status.CANCELLED, expires_at=now() + HOUR)]
        )
        await jobs.erase(connection, TENANT, job.id)

    assert [(status, reason) for status, _, _, reason in await told(database, job.id)] == [
        ("queued", "submitted"),
        ("queued", "changed"),
        ("running", None),
        ("cancelling", "cancel_requested"),
        ("cancelled", None),
        ("cancelled", "erased"),
    ]


async def test_what_ends_in_the_queue_has_its_end_in_it(database: Database) -> None:
    late, gone = await queued(database, queue_deadline=ago(seconds=1)), await queued(database)
    await cancel(database, gone.id)
    async with database.begin() as connection:
        await jobs.expire(connection, keep=HOUR, limit=10)

    assert (await told(database, late.id))[-1] == ("expired", 0, None, "queue_timeout")
    assert (await told(database, gone.id))[-1] == ("cancelled", 0, None, None)


async def test_a_retry_says_of_what(database: Database) -> None:
    first = await finished(database)
    again = await queued(database, retry_of=first.id)

    assert await told(database, again.id) == [("queued", 0, None, f"retry of {first.id}")]


async def test_a_refused_change_is_not_in_it(database: Database) -> None:
    job = await finished(database)
    await settle(database, ending(job))
    await give_back(database, job)
    await cancel(database, job.id)

    assert len(await told(database, job.id)) == 3


async def test_another_tenant_has_no_timeline(database: Database) -> None:
    job = await finished(database)

    assert await timeline(database, job.id, "other") is None


async def test_it_goes_with_its_job(database: Database) -> None:
    job, kept = await finished(database, expires_at=ago(seconds=1)), await finished(database)
    async with database.begin() as connection:
        await jobs.forget(connection, limit=10)

    assert {row.job_id for row in await rows(database, CHANGES)} == {kept.id}
    assert await timeline(database, job.id) is None


async def test_a_group_costs_one_statement_however_large_it_is(database: Database) -> None:
    counts = []
    for size in (2, 20):
        group = [await running(database) for _ in range(size)]
        seen: list[str] = []

        def note(_c: Any, _cursor: Any, statement: str, *_: Any, seen: list[str] = seen) -> None:
            seen.append(statement)

        event.listen(database.engine.sync_engine, "before_cursor_execute", note)
        await settle(database, *(ending(job) for job in group))
        event.remove(database.engine.sync_engine, "before_cursor_execute", note)
        counts.append(sum("job_changes" in statement for statement in seen))

    assert counts == [1, 1]


async def test_an_excused_attempt_is_no_strike(database: Database) -> None:
    job = await running(database)
    async with database.begin() as connection:
        await execution.give_back(database, connection, [(job.id, 1)], excused=False, struck=True)
    [second] = await claim(database, (job.id, 1))
    await move_time(database, table(JobChange), job.id, at=now() - timedelta(hours=1))

    assert (second.strikes, second.view.excused) == (1, 0)
