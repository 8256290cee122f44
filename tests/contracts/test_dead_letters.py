"""Dead letters: jobs that used up their attempts, until somebody decides."""

from datetime import UTC, datetime

from core.settings import Settings
from models.dialect import Database
from models.lifecycle import Status
from models.repositories import dead_letters, jobs, outbox, releasing, submission
from models.repositories.dead_letters import Letter
from models.tables import DeadLetter
from queues.messages import JobEnvelope, encode
from queues.publisher import DeadMessage
from queues.upkeep import Upkeep
from tests.contracts.stores import (
    HOUR,
    JOBS,
    OUTBOX,
    OVER,
    TENANT,
    claim,
    finished,
    give_back,
    now,
    queued,
    read,
    release,
    rows,
    running,
    table,
)
from tests.fakes.fake_publisher import FakePublisher

EXHAUSTED = {"code": dead_letters.CODE, "message": "three attempts failed"}


async def dead(database: Database, **changes: object) -> str:
    job = await running(database, lease=OVER, **changes)
    for attempt in (1, 2):
        await give_back(database, await read(database, job.id))
        await claim(database, (job.id, attempt), lease=OVER)
    settings = Settings()
    await Upkeep(database, FakePublisher(["tiny"]), settings, ["tiny"]).reap()
    return job.id


async def letters(database: Database, *, settled: bool = False) -> list[Letter]:
    async with database.read() as connection:
        return (await dead_letters.page(connection, settled=settled, after=None, limit=10))[0]


async def test_only_used_up_attempts_make_a_dead_letter(database: Database) -> None:
    job_id = await dead(database)
    await finished(database, Status.FAILED)

    [letter] = await letters(database)

    assert (letter.job_id, letter.attempt, letter.error and letter.error["code"]) == (
        job_id,
        3,
        dead_letters.CODE,
    )
    assert (await read(database, job_id)).status is Status.FAILED


async def test_a_requeued_letter_is_a_new_job_that_asks_the_same(database: Database) -> None:
    job_id = await dead(database, tags=("mine",), priority=7, queue_deadline=now() + HOUR)
    async with database.begin() as connection:
        job = await dead_letters.requeue(connection, job_id, new_id="job_again", at=datetime.now(UTC))
        assert job is not None
        await submission.accept(database, connection, [job])

    again = await read(database, "job_again")

    assert (again.status, again.retry_of, again.priority, again.tags) == (Status.QUEUED, job_id, 7, ["mine"])
    assert await letters(database) == []
    assert [one.requeued_as for one in await letters(database, settled=True)] == ["job_again"]
    [row] = await rows(database, OUTBOX, "job_again")
    assert (row.attempts, row.strikes, row.expires_at) == (0, 0, None)


async def test_a_letter_is_settled_once(database: Database) -> None:
    job_id = await dead(database)
    async with database.begin() as connection:
        first = await dead_letters.discard(connection, job_id)
        second = await dead_letters.discard(connection, job_id)
        again = await dead_letters.requeue(connection, job_id, new_id="job_x", at=datetime.now(UTC))

    assert (first, second, again) == (True, False, None)
    assert (await read(database, job_id)).status is Status.FAILED


async def test_an_erased_prompt_cannot_be_sent_again(database: Database) -> None:
    job_id = await dead(database)
    async with database.begin() as connection:
        await jobs.erase(connection, TENANT, job_id)
        again = await dead_letters.requeue(connection, job_id, new_id="job_x", at=datetime.now(UTC))

    assert again is None
    assert len(await letters(database)) == 1


async def test_a_letter_goes_with_its_job(database: Database) -> None:
    job_id = await dead(database)
    async with database.begin() as connection:
        await connection.execute(JOBS.delete().where(JOBS.c.id == job_id))

    assert await rows(database, table(DeadLetter)) == []


async def test_what_happened_to_a_job_travels_with_its_next_message(database: Database) -> None:
    job = await running(database)
    await give_back(database, job, excused=True)
    await claim(database, (job.id, 1))
    await give_back(database, await read(database, job.id))
    async with database.read() as connection:
        [lane] = (await releasing.look(connection)).lanes
    async with database.begin() as connection:
        [row] = await outbox.candidates(connection, [(lane, 1)])

    assert (row.attempts, row.strikes) == (1, 0)


def message(job_id: str, generation: int = 0) -> DeadMessage:
    envelope = JobEnvelope(job_id, generation, "tiny", "standard", TENANT, 5, 10, 1.0)
    return DeadMessage(encode(envelope).body, tag=1, channel=None)


async def test_a_message_that_the_broker_gave_up_makes_its_job_wait_again(
    database: Database, settings: Settings
) -> None:
    lost, claimed, newer = await queued(database), await running(database), await queued(database)
    await release(database, lost, newer)
    publisher = FakePublisher(["tiny"])
    publisher.graveyard = [
        message(lost.id),
        message(claimed.id),
        message(newer.id, generation=7),
        message("job_unknown"),
        DeadMessage(b"not ours", tag=2, channel=None),
        DeadMessage(b'[[], {"event": {}}, {}]', tag=3, channel=None),
    ]

    revived = await Upkeep(database, publisher, settings, ["tiny"]).revive()

    states = {row.job_id: row.state for row in await rows(database, OUTBOX)}
    assert revived == 1
    assert states == {lost.id: "scheduled", newer.id: "released"}
    assert publisher.graveyard == []
