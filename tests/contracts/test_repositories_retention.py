import asyncio
from datetime import datetime, timedelta

import pytest

from models.dialect import Database
from models.lifecycle import Status
from models.repositories import execution, jobs
from models.repositories.submission import IDEMPOTENCY_LIFETIME
from tests.contracts.stores import (
    FEEDBACK,
    HOUR,
    JOBS,
    KEYS,
    OUTBOX,
    PAYLOADS,
    RESULTS,
    TAGS,
    ago,
    finished,
    meanwhile,
    move_time,
    now,
    queued,
    read,
    rows,
    running,
)

PAST, FUTURE = timedelta(seconds=-1), HOUR


async def expire(database: Database, *, limit: int = 100) -> list[str]:
    async with database.begin() as connection:
        return await jobs.expire(connection, keep=HOUR, limit=limit)


async def forget(database: Database, *, limit: int = 100) -> int:
    async with database.begin() as connection:
        return await jobs.forget(connection, limit=limit)


@pytest.mark.parametrize(
    ("deadline", "longest_wait", "code"),
    [
        (None, PAST, "queue_timeout"),
        (FUTURE, PAST, "queue_timeout"),
        (PAST, PAST, "queue_timeout"),
        (PAST, None, "deadline_exceeded"),
        (PAST, FUTURE, "deadline_exceeded"),
    ],
)
async def test_a_job_that_waited_too_long_expires_with_the_reason(
    database: Database, deadline: timedelta | None, longest_wait: timedelta | None, code: str
) -> None:
    job = await queued(database, deadline=_at(deadline), queue_deadline=_at(longest_wait))

    expired = await expire(database)

    view = await read(database, job.id)
    assert expired == [job.id]
    assert (view.status, view.version, view.output) == (Status.EXPIRED, 2, None)
    assert view.error is not None
    assert view.error["code"] == code
    assert view.finished_at is not None
    assert view.expires_at is not None
    assert await rows(database, OUTBOX) == []


def _at(span: timedelta | None) -> datetime | None:
    return None if span is None else now() + span


async def test_only_jobs_that_wait_and_are_late_expire(database: Database) -> None:
    await queued(database)
    await queued(database, deadline=now() + HOUR, queue_deadline=now() + HOUR)
    started = await running(database, queue_deadline=now() + HOUR)
    await move_time(database, JOBS, started.id, queue_deadline=ago(hours=1), deadline=ago(hours=1))

    assert await expire(database) == []
    assert await rows(database, RESULTS) == []


async def test_late_jobs_expire_in_chunks(database: Database) -> None:
    for _ in range(5):
        await queued(database, queue_deadline=ago(seconds=1))

    assert [len(await expire(database, limit=2)) for _ in range(4)] == [2, 2, 1, 0]


async def test_a_job_that_is_claimed_in_the_last_moment_runs(database: Database) -> None:
    job = await queued(database, queue_deadline=now() + HOUR)
    await move_time(database, OUTBOX, job.id, expires_at=ago(seconds=1))

    async with asyncio.timeout(30), database.begin() as worker:
        await execution.claim(worker, [(job.id, 0)], worker="w1", lease=HOUR)
        async with meanwhile(database, expire(database)) as late:
            await worker.commit()
            expired = await late

    assert expired == []
    assert (await read(database, job.id)).status is Status.RUNNING
    assert await rows(database, RESULTS) == []


async def test_a_forgotten_job_takes_everything_of_it_along(database: Database) -> None:
    job = await finished(database, tags=("t",), expires_at=ago(seconds=1))
    async with database.begin() as connection:
        await jobs.give_feedback(database, connection, job.tenant_id, job.id, score=1, comment=None)

    assert await forget(database) == 1

    left = {of.name: len(await rows(database, of)) for of in (JOBS, PAYLOADS, RESULTS, TAGS, FEEDBACK)}
    assert set(left.values()) == {0}, left


async def test_a_job_whose_key_is_still_good_leaves_a_tombstone(database: Database) -> None:
    job = await finished(database, tags=("t",), idempotency_key="k", expires_at=ago(seconds=1))

    assert [await forget(database), await forget(database)] == [0, 0]

    view = await read(database, job.id)
    assert (view.status, view.output, view.tags) == (Status.COMPLETED, None, [])
    assert view.erased_at is not None


async def test_what_is_unfinished_or_still_kept_is_not_forgotten(database: Database) -> None:
    kept = [
        (await queued(database, created_at=ago(days=900))).id,
        (await running(database, created_at=ago(days=900))).id,
        (await finished(database, expires_at=now() + HOUR)).id,
    ]

    assert await forget(database) == 0
    assert sorted(row.id for row in await rows(database, JOBS)) == sorted(kept)


async def test_finished_jobs_are_forgotten_in_chunks(database: Database) -> None:
    for _ in range(5):
        await finished(database, expires_at=ago(seconds=1))

    assert [await forget(database, limit=2) for _ in range(4)] == [2, 2, 1, 0]


async def test_only_keys_whose_day_is_over_are_forgotten(database: Database) -> None:
    await queued(database, idempotency_key="old", created_at=now() - IDEMPOTENCY_LIFETIME - HOUR)
    await queued(database, idempotency_key="new")

    await forget(database)

    assert [row.key for row in await rows(database, KEYS)] == ["new"]
