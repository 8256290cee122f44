import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from models.dialect import Database
from models.repositories import jobs as jobs_of
from models.repositories import outbox, releasing
from models.repositories.outbox import WaitingRow, lane
from models.repositories.submission import NewJob
from models.waiting import Ahead
from tests.contracts.stores import (
    OUTBOX,
    PAYLOADS,
    accept,
    ago,
    cancel,
    finished,
    give_back,
    move_time,
    new_job,
    now,
    queued,
    read,
    release,
    rows,
    running,
)

LANE = lane("tiny", "standard", "acme")


async def candidates(database: Database, *lanes: tuple[str, int], **options: Any) -> list[WaitingRow]:
    async with database.begin() as connection:
        return await outbox.candidates(connection, lanes, **options)


def ids(found: Sequence[WaitingRow | NewJob]) -> list[str]:
    return [row.job_id if isinstance(row, WaitingRow) else row.id for row in found]


async def states(database: Database) -> dict[str, str]:
    return {row.job_id: row.state for row in await rows(database, OUTBOX)}


async def test_only_lanes_with_something_to_release_are_listed(database: Database) -> None:
    await accept(
        database,
        *(new_job(tenant_id=tenant) for tenant in ("b", "a", "b")),
        new_job(service_class="premium", tenant_id="a"),
        new_job(tenant_id="later", not_before=now() + timedelta(hours=1)),
    )
    await release(database, await queued(database, tenant_id="gone"))

    async with database.read() as connection:
        names = (await releasing.look(connection)).lanes

    assert names == [
        lane("tiny", "premium", "a"),
        lane("tiny", "standard", "a"),
        lane("tiny", "standard", "b"),
    ]
    assert outbox.lane_parts(names[0]) == ("tiny", "premium", "a", None)


async def test_an_empty_outbox_has_no_lanes_and_no_candidates(database: Database) -> None:
    async with database.read() as connection:
        assert (await releasing.look(connection)).lanes == []
        assert await outbox.next_scheduled(connection) is None
        assert await outbox.count_up_to(connection, 10) == 0
    assert await candidates(database) == []
    assert await candidates(database, (LANE, 0)) == []


async def test_the_best_of_a_lane_is_the_highest_priority_and_then_the_oldest(database: Database) -> None:
    low = await queued(database, priority=1, created_at=ago(hours=3))
    young = await queued(database, priority=5, created_at=ago(hours=1))
    old = await queued(database, priority=5, created_at=ago(hours=2))
    high = await queued(database, priority=9)

    assert ids(await candidates(database, (LANE, 9))) == ids([high, old, young, low])
    assert ids(await candidates(database, (LANE, 2))) == ids([high, old])


async def test_each_lane_has_a_limit_of_its_own(database: Database) -> None:
    await accept(database, *(new_job(tenant_id=tenant) for tenant in "aaabbbccc"))
    limits = [(lane("tiny", "standard", tenant), limit) for tenant, limit in (("a", 2), ("b", 1), ("c", 0))]

    found = await candidates(database, *limits)

    assert sorted(row.tenant_id for row in found) == ["a", "a", "b"]


async def test_released_jobs_do_not_take_the_places_of_waiting_ones(database: Database) -> None:
    first, second = await queued(database, priority=9), await queued(database, priority=8)
    third = await queued(database, priority=1)
    await release(database, first)

    assert ids(await candidates(database, (LANE, 2))) == ids([second, third])


async def test_aged_candidates_are_the_oldest_whatever_their_priority(database: Database) -> None:
    oldest = await queued(database, priority=0, created_at=ago(hours=3))
    older = await queued(database, priority=9, created_at=ago(hours=2))
    await queued(database, priority=9, created_at=ago(minutes=1))

    assert ids(await candidates(database, (LANE, 1), aged=timedelta(hours=1))) == ids([oldest])
    assert ids(await candidates(database, (LANE, 5), aged=timedelta(hours=1))) == ids([oldest, older])


async def test_a_candidate_says_what_the_order_needs(database: Database) -> None:
    deadline = now() + timedelta(hours=1)
    job = await queued(database, priority=8, cost=77, prefix="p", prefix_tokens=3, deadline=deadline)

    [row] = await candidates(database, (LANE, 1))

    assert row == WaitingRow(
        job.id, 0, "tiny", "standard", "acme", 1, 77, "p", 3, job.created_at, deadline
    )  # fmt: skip


async def test_a_row_that_another_relay_publishes_is_passed_over(database: Database) -> None:
    await accept(database, *(new_job() for _ in range(4)))
    if database.is_sqlite:
        return  # one writer: the other relay waits

    async with asyncio.timeout(10), database.begin() as first:
        mine = await outbox.candidates(first, [(LANE, 3)])
        theirs = await candidates(database, (LANE, 4))

    assert len(mine) == 3
    assert len(theirs) == 1
    assert not set(ids(mine)) & set(ids(theirs))


async def test_a_scheduled_row_waits_once_its_time_has_come(database: Database) -> None:
    due = await queued(database, not_before=now() + timedelta(hours=1))
    later = await queued(database, not_before=(start := now() + timedelta(hours=2)))
    await move_time(database, OUTBOX, due.id, available_at=ago(seconds=1))

    async with database.begin() as connection:
        promoted = await outbox.promote_scheduled(connection)
        following = await outbox.next_scheduled(connection)

    assert promoted == 1
    assert await states(database) == {due.id: "waiting", later.id: "scheduled"}
    assert following == start


async def test_only_the_published_generation_is_marked_released(database: Database) -> None:
    current, changed = await queued(database), await queued(database)
    await move_time(database, OUTBOX, changed.id, generation=1)

    await release(database, current, changed)

    assert await states(database) == {current.id: "released", changed.id: "waiting"}


async def test_released_jobs_are_counted_by_lane_and_by_model(database: Database) -> None:
    group = [new_job(tenant_id="a"), new_job(tenant_id="a"), new_job(tenant_id="b"), new_job(model="big")]
    await accept(database, *group, new_job(tenant_id="a"))
    await release(database, *group)

    async with database.read() as connection:
        by_lane = await outbox.released_counts(connection)
        by_model = await outbox.released_by_model(connection)

    assert by_lane == {
        lane("tiny", "standard", "a"): 2,
        lane("tiny", "standard", "b"): 1,
        lane("big", "standard", "acme"): 1,
    }
    assert by_model == {"tiny": 3, "big": 1}


async def test_what_waits_is_counted_in_jobs_and_tokens(database: Database) -> None:
    released = new_job(cost=5)
    await accept(
        database,
        released,
        new_job(cost=7),
        new_job(cost=2, service_class="bulk"),
        new_job(cost=9, not_before=now() + timedelta(hours=1)),
    )
    await release(database, released)

    async with database.read() as connection:
        counts = await outbox.waiting_counts(connection)
        some = await outbox.count_up_to(connection, 3)
        every = await outbox.count_up_to(connection, 100)

    assert counts == {("tiny", "standard"): (2, 12), ("tiny", "bulk"): (1, 2)}
    assert (some, every) == (3, 4)


async def test_only_what_was_released_long_ago_is_taken_back(database: Database) -> None:
    lost, fresh, other = await queued(database), await queued(database), await queued(database, model="big")
    await release(database, lost, fresh, other)
    for job in (lost, other):
        await move_time(database, OUTBOX, job.id, released_at=ago(minutes=5))

    async with database.begin() as connection:
        taken = await outbox.take_back(connection, model="tiny", released_for=timedelta(minutes=1))

    assert taken == 1
    assert await states(database) == {lost.id: "waiting", fresh.id: "released", other.id: "released"}


async def test_everything_released_is_taken_back_at_once(database: Database) -> None:
    released, scheduled = (
        await queued(database),
        await queued(database, not_before=now() + timedelta(hours=1)),
    )
    await release(database, released)

    async with database.begin() as connection:
        await outbox.take_back_all(connection)

    assert await states(database) == {released.id: "waiting", scheduled.id: "scheduled"}


async def test_ahead_of_a_job_is_what_of_its_model_and_class_came_before(database: Database) -> None:
    earlier = [
        await queued(database, created_at=ago(hours=hour), tenant_id="b", cost=100 * hour) for hour in (3, 2)
    ]
    job = await queued(database, created_at=ago(hours=1), cost=7)
    last = await queued(database)
    await queued(database, created_at=ago(hours=2), service_class="premium")
    await queued(database, created_at=ago(hours=2), model="big")
    await queued(database, created_at=ago(hours=2), not_before=now() + timedelta(hours=1))
    await release(database, earlier[0])
    views = [await read(database, one.id) for one in (job, last)]

    async with database.read() as connection:
        found = [await outbox.ahead(connection, views, limit=limit) for limit in (9, 2, 1)]

    assert found == [{job.id: Ahead(2, 500), last.id: Ahead(3, 507)}, {job.id: Ahead(2, 500)}, {}]


async def test_a_cancelled_job_does_not_wait(database: Database) -> None:
    job = await queued(database)

    await cancel(database, job.id)

    assert await states(database) == {}


def begun(*pairs: tuple[str | None, str | None], limit: int) -> outbox.Wanted:
    return outbox.Wanted.of(LANE, pairs, limit=limit)


async def test_kin_come_group_by_group_in_the_order_asked_for(database: Database) -> None:
    jobs = [new_job(prefix=prefix, prefix_tokens=100) for prefix in ("a", "b", None, "c", "b", "a")]
    await accept(database, *jobs)
    first_a, first_b, _, _, second_b, second_a = jobs

    async with database.begin() as connection:
        three = await outbox.kin(connection, [begun(("b", None), ("a", None), limit=3)], among=9)
        near = await outbox.kin(connection, [begun(("a", None), limit=9)], among=5)
        nobody = await outbox.kin(connection, [begun(limit=3)], among=9)

    assert set(ids(three)) == set(ids([first_b, second_b, first_a]))
    assert ids(near) == [first_a.id]
    assert second_a.id not in ids(near)
    assert nobody == []


async def test_kin_without_a_name_are_those_whose_trails_share_most(database: Database) -> None:
    trails = ("headsameA", "other", "headsameB", "headdiff", None, "headsame")
    jobs = [new_job(trail=trail) for trail in trails]
    await accept(database, *jobs)

    async with database.begin() as connection:
        two = await outbox.kin(connection, [begun((None, "headsamewhat"), limit=3)], among=9)
        all_four = await outbox.kin(connection, [begun((None, "headsamewhat"), limit=9)], among=9)

    assert {row.trail for row in two} == {"headsameA", "headsameB", "headsame"}
    assert {row.trail for row in all_four} == {"headsameA", "headsameB", "headsame", "headdiff"}


async def test_a_trail_stays_with_its_job_until_the_prompt_is_erased(database: Database) -> None:
    view = await running(database, trail="head")
    await give_back(database, view)
    [row] = await candidates(database, (LANE, 1))
    done = await finished(database, trail="head")

    async with database.begin() as connection:
        assert await jobs_of.erase(connection, done.tenant_id, done.id)

    assert row.trail == "head"
    assert {one.job_id: one.trail for one in await rows(database, PAYLOADS)} == {
        view.id: "head",
        done.id: None,
    }
