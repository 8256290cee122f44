"""What finished jobs used, and the most that an owner may have unfinished."""

import asyncio
from datetime import UTC, datetime, timedelta

from models.dialect import Database
from models.lifecycle import Status
from models.limits import Bounds, Complexity, Limits
from models.repositories import access, usage
from models.repositories.submission import Reception
from models.repositories.usage import UsageRow
from tests.contracts.stores import (
    TENANT,
    accept,
    cancel,
    ending,
    finished,
    new_job,
    queued,
    running,
    settle,
)

USED = {
    "prompt_tokens": 10,
    "completion_tokens": 5,
    "total_tokens": 15,
    "prompt_tokens_details": {"cached_tokens": 4},
}


def today() -> datetime:
    return datetime.now(UTC)


async def report(database: Database, group_by: str, *, tenant_id: str = TENANT) -> list[UsageRow]:
    day = today().date()
    async with database.read() as connection:
        return await usage.report(
            connection, tenant_id, since=day - timedelta(1), until=day + timedelta(1), group_by=group_by
        )


async def test_what_jobs_used_is_summed_by_key_model_and_class(database: Database) -> None:
    views = [await running(database, key_id=key, service_class=c) for key, c in
             (("k1", "premium"), ("k1", "bulk"), ("k2", "bulk"))]  # fmt: skip
    await settle(database, *(ending(view, usage=USED) for view in views))

    assert await report(database, "key") == [UsageRow("k1", 2, 0, 20, 8, 10), UsageRow("k2", 1, 0, 10, 4, 5)]
    assert await report(database, "class") == [
        UsageRow("bulk", 2, 0, 20, 8, 10),
        UsageRow("premium", 1, 0, 10, 4, 5),
    ]
    assert [row.group for row in await report(database, "model")] == ["tiny"]
    assert await report(database, "day", tenant_id="other") == []


async def test_an_ending_that_was_fenced_off_uses_nothing(database: Database) -> None:
    view = await running(database)
    await settle(database, ending(view, usage=USED))
    await settle(database, ending(view, usage=USED))

    assert [row.jobs for row in await report(database, "day")] == [1]


async def test_a_job_that_never_ran_uses_nothing_and_one_that_failed_counts_its_tokens(
    database: Database,
) -> None:
    await cancel(database, (await queued(database)).id)
    view = await running(database)
    await settle(database, ending(view, Status.FAILED, usage=USED))

    assert await report(database, "day") == [UsageRow(today().date().isoformat(), 1, 0, 10, 4, 5)]


async def test_two_transactions_may_add_to_the_same_sums(database: Database) -> None:
    views = [await running(database, key_id=key) for key in ("k1", "k2", "k1", "k2")]
    await asyncio.gather(
        settle(database, *(ending(view, usage=USED) for view in views[:2])),
        settle(database, *(ending(view, usage=USED) for view in views[:1:-1])),
    )

    assert [row.jobs for row in await report(database, "key")] == [2, 2]


async def test_old_sums_are_forgotten(database: Database) -> None:
    await finished(database)
    async with database.begin() as connection:
        await usage.forget(connection, before=today().date())
        kept = await usage.tokens_by_key(connection, TENANT, today().date())
        await usage.forget(connection, before=today().date() + timedelta(days=2))

    assert kept == {"": 0}
    assert await report(database, "day") == []


async def test_a_job_beyond_the_bound_is_refused_and_one_that_ends_makes_room(database: Database) -> None:
    group = [new_job(key_id="k1", most_of_tenant=3, most_of_key=2) for _ in range(4)]
    receipts = await accept(database, *group)
    again = await accept(database, new_job(key_id="k2", most_of_tenant=3, most_of_key=2))
    crowded = await accept(database, new_job(key_id="k2", most_of_tenant=3, most_of_key=2))
    await cancel(database, group[0].id)
    after = await accept(database, new_job(key_id="k2", most_of_tenant=3))

    assert [receipt.reception for receipt in receipts] == [Reception.CREATED] * 2 + [Reception.CROWDED] * 2
    assert [one.reception for one in (*again, *crowded, *after)] == [
        Reception.CREATED,
        Reception.CROWDED,
        Reception.CREATED,
    ]


async def test_a_refused_submission_may_come_again_under_its_key(database: Database) -> None:
    first = await queued(database)
    job = new_job(most_of_tenant=1, idempotency_key="once")
    [refused] = await accept(database, job)
    await cancel(database, first.id)
    [accepted] = await accept(database, new_job(most_of_tenant=1, idempotency_key="once"))

    assert refused.reception is Reception.CROWDED
    assert accepted.reception is Reception.CREATED


async def test_limits_are_kept_by_owner(database: Database) -> None:
    limits = Limits(requests_per_minute=5, max_complexity=Complexity.LOW)
    async with database.begin() as connection:
        await access.set_limits(connection, "ten_1", Limits(tokens_per_day=9))
        await access.set_limits(connection, "ten_1", limits)
        found = await access.bounds(connection, tenant_id="ten_1", key_id="key_1")

    assert found == Bounds(tenant=limits)
