import asyncio
from datetime import timedelta

from models.dialect import Database
from models.lifecycle import Status
from models.repositories import execution
from models.repositories.execution import HeldLease
from tests.contracts.stores import (
    HOUR,
    JOBS,
    LEASES,
    OUTBOX,
    OVER,
    accept,
    ago,
    cancel,
    cancelling,
    claim,
    ending,
    give_back,
    move_time,
    new_job,
    now,
    queued,
    read,
    rows,
    running,
    settle,
)


async def test_a_claim_starts_the_job_under_a_lease(database: Database) -> None:
    job = await queued(database, request={"prompt": "Hi."}, cost=12, result_ttl=HOUR, metadata={"a": "b"})

    [claimed] = await claim(database, (job.id, 0), worker="w7")

    view = await read(database, job.id)
    [lease] = await rows(database, LEASES)
    assert (view.status, view.attempt, view.version, view.worker) == (Status.RUNNING, 1, 2, "w7")
    assert view.started_at is not None
    assert (claimed.view.attempt, claimed.view.version, claimed.view.metadata) == (1, 2, {"a": "b"})
    assert (claimed.request, claimed.cost, claimed.result_ttl) == ({"prompt": "Hi."}, 12, HOUR)
    assert (lease.job_id, lease.attempt, lease.worker, lease.cancel_requested) == (job.id, 1, "w7", False)
    assert await rows(database, OUTBOX) == []


async def test_a_second_claim_gets_nothing(database: Database) -> None:
    job = await queued(database)
    await claim(database, (job.id, 0))

    assert await claim(database, (job.id, 0), worker="w2") == []
    assert (await read(database, job.id)).worker == "w1"


async def test_only_what_is_queued_in_this_generation_and_in_time_is_claimed(database: Database) -> None:
    good = await queued(database, deadline=now() + HOUR, queue_deadline=now() + HOUR)
    gone = await queued(database)
    await cancel(database, gone.id)
    late = [await queued(database, **{name: ago(seconds=1)}) for name in ("deadline", "queue_deadline")]
    renewed = await running(database)
    await give_back(database, renewed)
    wanted = [(job.id, 0) for job in (good, gone, *late, renewed)]

    claimed = await claim(database, *wanted, ("job_unknown", 0), (good.id, 1))

    assert [one.view.id for one in claimed] == [good.id]
    assert len(await rows(database, LEASES)) == 1
    assert len(await rows(database, OUTBOX)) == 3


async def test_the_first_start_is_kept_through_all_attempts(database: Database) -> None:
    first = await running(database)
    await give_back(database, first)

    [second] = await claim(database, (first.id, 1), worker="w2")

    assert (second.view.attempt, second.view.generation) == (2, 1)
    assert second.view.started_at == first.started_at


async def test_workers_that_claim_the_same_jobs_share_them_without_doubles(database: Database) -> None:
    jobs = [new_job() for _ in range(60)]
    await accept(database, *jobs)
    wanted = [(job.id, 0) for job in jobs]
    groups = [wanted[start : start + 20] for start in (0, 20, 40)]

    async with asyncio.timeout(30):
        claims = await asyncio.gather(
            *(claim(database, *group, worker="w1") for group in groups),
            *(claim(database, *group[::-1], worker="w2") for group in groups),
            claim(database, *wanted[::-1], worker="w3"),
        )

    got = [one.view.id for group in claims for one in group]
    assert sorted(got) == sorted(job.id for job in jobs)
    assert {row.attempt for row in await rows(database, JOBS)} == {1}
    assert len(await rows(database, LEASES)) == 60


async def test_a_heartbeat_extends_only_its_own_leases_and_tells_what_was_cancelled(
    database: Database,
) -> None:
    mine = await running(database, lease=OVER)
    stopped = await cancelling(database, lease=OVER)
    theirs = await running(database, worker="w2", lease=OVER)

    async with database.begin() as connection:
        held = await execution.extend_leases(
            connection, [mine.id, stopped.id, theirs.id], worker="w1", lease=HOUR
        )

    assert sorted(held, key=lambda one: one.job_id) == [
        HeldLease(mine.id, 1, cancel_requested=False),
        HeldLease(stopped.id, 1, cancel_requested=True),
    ]
    async with database.begin() as connection:
        lost = await execution.expired_leases(connection, limit=10)
    assert [one.job_id for one in lost] == [theirs.id]


async def test_a_heartbeat_does_not_mention_what_was_lost(database: Database) -> None:
    lost = await running(database)
    await give_back(database, lost)
    done = await running(database)
    await settle(database, ending(done))

    async with database.begin() as connection:
        held = await execution.extend_leases(connection, [lost.id, done.id], worker="w1", lease=HOUR)

    assert held == []


async def test_a_lease_of_a_claim_that_nobody_heard_of_runs_out(database: Database) -> None:
    known = await running(database, lease=OVER)
    unheard = await running(database, lease=OVER)

    async with database.begin() as connection:
        await execution.extend_leases(connection, [known.id], worker="w1", lease=HOUR)
        lost = await execution.expired_leases(connection, limit=10)

    assert [one.job_id for one in lost] == [unheard.id]


async def test_an_expired_lease_says_what_the_reaper_needs(database: Database) -> None:
    await running(database)
    first = await running(database)
    await give_back(database, first, excused=True)
    await claim(database, (first.id, 1), worker="w9", lease=OVER)
    stopped = await cancelling(database, lease=OVER)

    async with database.begin() as connection:
        lost = {one.job_id: one for one in await execution.expired_leases(connection, limit=10)}
        few = await execution.expired_leases(connection, limit=1)

    assert lost.keys() == {first.id, stopped.id}
    found = lost[first.id]
    assert (found.attempt, found.excused, found.status, found.worker) == (2, 1, Status.RUNNING, "w9")
    assert lost[stopped.id].status is Status.CANCELLING
    assert len(few) == 1


async def test_two_reapers_never_see_the_same_lease(database: Database) -> None:
    await running(database, lease=OVER)
    if database.is_sqlite:
        return  # one writer: the other reaper waits

    async with database.begin() as first, database.begin() as second:
        seen = await execution.expired_leases(first, limit=10)
        also = await execution.expired_leases(second, limit=10)

    assert (len(seen), also) == (1, [])


async def test_a_restarted_only_worker_has_lost_what_it_held(database: Database) -> None:
    view = await running(database)

    async with database.begin() as connection:
        await execution.void_leases(connection)
    async with database.begin() as connection:
        lost = await execution.expired_leases(connection, limit=10)

    assert [one.job_id for one in lost] == [view.id]


async def test_a_lease_is_counted_from_the_clock_of_the_database(database: Database) -> None:
    view = await running(database, lease=timedelta(seconds=30))

    [lease] = await rows(database, LEASES, view.id)

    assert timedelta(0) < lease.expires_at - now() <= timedelta(seconds=31)


async def test_a_deadline_that_moved_back_lets_the_job_be_claimed(database: Database) -> None:
    job = await queued(database, deadline=ago(seconds=1))
    await move_time(database, JOBS, job.id, deadline=now() + HOUR)

    assert len(await claim(database, (job.id, 0))) == 1
