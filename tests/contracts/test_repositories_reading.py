from models.dialect import Database
from models.lifecycle import Status
from models.repositories import jobs
from models.repositories.jobs import Filter
from models.views import JobView
from tests.contracts.stores import (
    TENANT,
    accept,
    cancelling,
    ending,
    finished,
    new_job,
    queued,
    read,
    running,
    settle,
)

SAYINGS = {
    "de": "Grüße",
    "zh": "你好",
    "emoji": "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{ROCKET}",
    "rtl": "שלום",
    "zero": "a\u0000b",
    "quote": "\"'\\",
}


async def page(database: Database, limit: int = 20, **wanted: str) -> tuple[list[str], bool]:
    async with database.read() as connection:
        found, more = await jobs.page(connection, TENANT, Filter(**wanted), limit=limit)
    return [view.id for view in found], more


async def in_flight(database: Database, fingerprint: str, tenant_id: str = TENANT) -> str | None:
    async with database.read() as connection:
        return await jobs.find_in_flight(connection, tenant_id, fingerprint)


async def test_a_job_is_read_as_it_was_accepted(database: Database) -> None:
    job = await queued(
        database,
        request={"prompt": SAYINGS},
        metadata=SAYINGS | {"nested": [1, 2.5, None, {"a": True}]},
        tags=("größe", "日本"),
        retry_of="job_before",
        batch_id="batch_1",
    )

    view = await read(database, job.id)

    assert view == JobView(
        id=job.id,
        tenant_id=TENANT,
        model="tiny",
        service_class="standard",
        priority=5,
        status=Status.QUEUED,
        version=1,
        created_at=job.created_at,
        retry_of="job_before",
        batch_id="batch_1",
        metadata=job.metadata,
        tags=["größe", "日本"],
    )
    async with database.read() as connection:
        assert await jobs.read_request(connection, TENANT, job.id) == {"prompt": SAYINGS}


async def test_an_answer_is_read_as_it_was_written(database: Database) -> None:
    job = await running(database)
    await settle(database, ending(job, output={"text": SAYINGS, "reasoning": None}))

    view = await read(database, job.id)

    assert view.output == {"text": SAYINGS, "reasoning": None}
    assert JobView.from_json(view.to_json()) == view


async def test_a_job_of_another_tenant_is_not_there(database: Database) -> None:
    mine, theirs = await queued(database, fingerprint="f"), await queued(database, tenant_id="other")

    async with database.read() as connection:
        found = await jobs.read(connection, "other", mine.id)
        request = await jobs.read_request(connection, "other", mine.id)
        many = await jobs.read_many(connection, TENANT, [mine.id, theirs.id, "job_unknown"])

    assert (found, request) == (None, None)
    assert [view.id for view in many] == [mine.id]
    assert await in_flight(database, "f", "other") is None
    assert await page(database) == ([mine.id], False)


async def test_a_page_is_newest_first_and_says_whether_there_are_more(database: Database) -> None:
    made = [new_job(id=f"job_{letter}") for letter in "09AZaz"]
    await accept(database, *made)
    newest_first = [job.id for job in reversed(made)]

    first, second = await page(database, 4), await page(database, 4, after="job_A")

    assert first == (newest_first[:4], True)
    assert second == (newest_first[4:], False)
    assert await page(database, 6) == (newest_first, False)


async def test_a_page_narrows_by_every_filter_together(database: Database) -> None:
    wanted = {"model": "m", "service_class": "bulk", "batch_id": "b"}
    job = await queued(database, **wanted, tags=("t", "u"))
    for name in wanted:
        await queued(database, **wanted | {name: "other"}, tags=("t",))
    await queued(database, **wanted, tags=("v",))
    await running(database, **wanted, tags=("t",))
    await queued(database, **wanted, tags=("t",), tenant_id="other")

    assert await page(database, **wanted, status="queued", tag="t") == ([job.id], False)


async def test_the_newest_unfinished_job_that_asked_the_same_is_found(database: Database) -> None:
    await accept(database, new_job(id="job_a", fingerprint="f"), new_job(id="job_Z", fingerprint="f"))
    await queued(database, id="job_b", fingerprint="g")

    assert await in_flight(database, "f") == "job_a"
    assert await in_flight(database, "none") is None


async def test_a_job_that_ends_is_not_in_flight(database: Database) -> None:
    await finished(database, fingerprint="f")
    await cancelling(database, fingerprint="f")
    runs = await running(database, fingerprint="g")

    assert await in_flight(database, "f") is None
    assert await in_flight(database, "g") == runs.id
