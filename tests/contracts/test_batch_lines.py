"""Lines of batches are jobs like any other: each batch in its lane, each end counted, no end told."""

from datetime import UTC, datetime

from sqlalchemy import select

from core.ids import new_id
from models.batch_tables import Batch, BatchTally
from models.dialect import Database
from models.lifecycle import Status
from models.repositories import execution, outbox, releasing
from tests.contracts.stores import TENANT, accept, cancel, claim, ending, new_job, settle, table


async def batch(database: Database) -> str:
    batch_id, now = new_id("batch"), datetime.now(UTC)
    row = {
        "id": batch_id, "tenant_id": TENANT, "status": "in_progress", "endpoint": "/v1/chat/completions",
        "input_file_id": "file_1", "service_class": "bulk", "completion_window": "24h", "models": ["tiny"],
        "total": 3,
        "completed": 0, "failed": 0, "loaded": 3, "problems": [], "metadata": {}, "fence": 0,
        "created_at": now, "expires_at": now,
    }  # fmt: skip
    async with database.begin() as connection:
        await connection.execute(table(Batch).insert().values(**row))
    return batch_id


async def test_each_end_of_a_line_is_counted_once(database: Database) -> None:
    batch_id = await batch(database)
    lines = [new_job(batch_id=batch_id, batch_line=n, custom_id=f"c{n}") for n in range(3)]
    await accept(database, *lines)
    claims = await claim(database, (lines[0].id, 0), (lines[1].id, 0))
    await settle(database, *(ending(one.view, Status.COMPLETED) for one in claims))
    await settle(database, *(ending(one.view, Status.FAILED) for one in claims))
    await cancel(database, lines[2].id)

    async with database.read() as connection:
        rows = await connection.execute(select(BatchTally.completed, BatchTally.failed))
        counted = [tuple(row) for row in rows]

    assert (sum(one for one, _ in counted), sum(two for _, two in counted)) == (2, 1)


async def test_a_line_that_is_given_back_waits_in_its_batch_s_lane(database: Database) -> None:
    batch_id = await batch(database)
    line = new_job(batch_id=batch_id, batch_line=0)
    await accept(database, line)
    async with database.read() as connection:
        before = (await releasing.look(connection)).lanes
    await claim(database, (line.id, 0))

    async with database.begin() as connection:
        await execution.give_back(database, connection, [(line.id, 1)], excused=True)

    async with database.read() as connection:
        assert (await releasing.look(connection)).lanes == before
        [row] = await outbox.candidates(connection, [(before[0], 5)])
    assert outbox.lane_parts(before[0]) == ("tiny", "standard", TENANT, batch_id)
    assert row.batch_id == batch_id
