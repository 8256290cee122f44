import asyncio
from datetime import timedelta

from models.dialect import Database
from models.repositories import submission
from models.repositories.submission import IDEMPOTENCY_LIFETIME, Receipt, Reception
from tests.contracts.stores import (
    JOBS,
    OUTBOX,
    PAYLOADS,
    TAGS,
    accept,
    ago,
    new_job,
    now,
    queued,
    rows,
)

CREATED, REPLAYED, MISMATCH = Reception.CREATED, Reception.REPLAYED, Reception.MISMATCH


async def test_receipts_come_in_the_order_of_the_jobs(database: Database) -> None:
    group = [new_job(idempotency_key=key) for key in ("z", None, "a", "m", None)]

    receipts = await accept(database, *group)

    assert receipts == [Receipt(CREATED, job.id) for job in group]
    assert {row.id for row in await rows(database, JOBS)} == {job.id for job in group}


async def test_an_accepted_job_waits_with_its_terms(database: Database) -> None:
    deadline = now() + timedelta(hours=1)
    job = await queued(
        database,
        priority=7,
        cost=42,
        prefix="p",
        prefix_tokens=9,
        deadline=deadline,
        result_ttl=timedelta(days=2),
    )

    [row] = await rows(database, OUTBOX, job.id)
    [payload] = await rows(database, PAYLOADS, job.id)

    assert (row.state, row.rank, row.cost, row.prefix, row.prefix_tokens) == ("waiting", 2, 42, "p", 9)
    assert (row.deadline, row.expires_at, row.generation) == (deadline, deadline, 0)
    assert payload.result_ttl == 2 * 86400


async def test_the_nearer_of_deadline_and_longest_wait_ends_the_waiting(database: Database) -> None:
    soon, late = now() + timedelta(minutes=1), now() + timedelta(hours=1)

    first = await queued(database, deadline=late, queue_deadline=soon)
    second = await queued(database, deadline=soon, queue_deadline=late)

    found = [(await rows(database, OUTBOX, job.id))[0].expires_at for job in (first, second)]
    assert found == [soon, soon]


async def test_a_job_with_a_future_start_is_scheduled(database: Database) -> None:
    start = now() + timedelta(hours=1)

    later = await queued(database, not_before=start)
    at_once = await queued(database, not_before=ago(hours=1))

    [scheduled] = await rows(database, OUTBOX, later.id)
    [waiting] = await rows(database, OUTBOX, at_once.id)
    assert (scheduled.state, scheduled.available_at) == ("scheduled", start)
    assert (waiting.state, waiting.available_at) == ("waiting", None)


async def test_a_tag_given_twice_is_one_tag(database: Database) -> None:
    job = await queued(database, tags=("a", "b", "a"))

    assert sorted(row.tag for row in await rows(database, TAGS, job.id)) == ["a", "b"]


async def test_the_same_key_again_gives_the_first_job(database: Database) -> None:
    first = await queued(database, idempotency_key="k")

    again = await accept(database, new_job(idempotency_key="k"))

    assert again == [Receipt(REPLAYED, first.id)]
    assert len(await rows(database, JOBS)) == 1


async def test_the_same_key_twice_in_one_group_makes_one_job(database: Database) -> None:
    first, second, other = (new_job(idempotency_key="k") for _ in range(3))

    receipts = await accept(database, first, new_job(), second, other)

    assert [receipt.reception for receipt in receipts] == [CREATED, CREATED, REPLAYED, REPLAYED]
    assert {receipt.job_id for receipt in (receipts[0], *receipts[2:])} == {first.id}
    assert len(await rows(database, JOBS)) == 2


async def test_the_same_key_for_something_else_is_a_mismatch(database: Database) -> None:
    first = await queued(database, idempotency_key="k", fingerprint="one")

    [later] = await accept(database, new_job(idempotency_key="k", fingerprint="two"))
    together = await accept(
        database,
        new_job(idempotency_key="l", fingerprint="one"),
        new_job(idempotency_key="l", fingerprint="two"),
    )

    assert later == Receipt(MISMATCH, first.id)
    assert [receipt.reception for receipt in together] == [CREATED, MISMATCH]
    assert len(await rows(database, JOBS)) == 2


async def test_tenants_do_not_share_keys(database: Database) -> None:
    receipts = await accept(
        database,
        new_job(idempotency_key="k", tenant_id="one"),
        new_job(idempotency_key="k", tenant_id="two"),
    )

    assert [receipt.reception for receipt in receipts] == [CREATED, CREATED]


async def test_an_expired_key_is_free_again(database: Database) -> None:
    long_ago = now() - IDEMPOTENCY_LIFETIME - timedelta(seconds=1)
    await queued(database, idempotency_key="k", created_at=long_ago, fingerprint="old")

    job = new_job(idempotency_key="k", fingerprint="new")
    taken = await accept(database, job)
    replayed = await accept(database, new_job(idempotency_key="k", fingerprint="new"))

    assert (taken, replayed) == ([Receipt(CREATED, job.id)], [Receipt(REPLAYED, job.id)])


async def test_a_key_lives_until_its_last_second(database: Database) -> None:
    nearly = now() - IDEMPOTENCY_LIFETIME + timedelta(minutes=1)
    first = await queued(database, idempotency_key="k", created_at=nearly)

    assert await accept(database, new_job(idempotency_key="k")) == [Receipt(REPLAYED, first.id)]


async def test_groups_that_share_keys_in_opposite_order_do_not_wait_for_each_other(
    database: Database,
) -> None:
    keys = [f"k{number}" for number in range(50)]
    groups = [
        [new_job(idempotency_key=key) for key in order] for order in (keys, keys[::-1]) for _ in range(3)
    ]

    async with asyncio.timeout(30):
        received = await asyncio.gather(*(accept(database, *group) for group in groups))

    owners = {
        (job.idempotency_key, r.job_id)
        for g, rs in zip(groups, received, strict=True)
        for job, r in zip(g, rs, strict=True)
    }
    assert len(owners) == 50
    assert len(await rows(database, JOBS)) == 50


async def test_a_group_that_fails_leaves_nothing(database: Database) -> None:
    job = await queued(database)
    group = [new_job(idempotency_key="k"), new_job(id=job.id)]

    try:
        await accept(database, *group)
    except Exception as error:  # noqa: BLE001 - whichever of the two dialects says it
        refused: Exception | None = error
    else:
        refused = None

    assert type(refused).__name__ == "IntegrityError"
    assert [row.id for row in await rows(database, JOBS)] == [job.id]
    [receipt] = await accept(database, new_job(idempotency_key="k"))
    assert receipt.reception is CREATED


async def test_nothing_to_accept_is_nothing(database: Database) -> None:
    async with database.begin() as connection:
        assert await submission.accept(database, connection, []) == []
