"""What the platform says of itself, on both databases."""

from models.batch_tables import Batch
from models.dialect import Database
from models.repositories import access, overview
from models.repositories.access import TenantRow
from models.repositories.overview import Ledger, TenantLoad
from models.tables import DeadLetter
from tests.contracts.stores import OVER, TENANT, ago, now, queued, release, running, table


async def look(database: Database) -> Ledger:
    async with database.read() as connection:
        return await overview.read(connection)


async def test_an_empty_platform_has_nothing_to_say(database: Database) -> None:

    ledger = await look(database)

    assert ledger.backlogs == []
    assert ledger.running == {}
    assert (ledger.dead_letters, ledger.overdue_leases, ledger.deliveries.open) == (0, 0, 0)
    assert ledger.deliveries.late_since is None


async def test_what_waits_is_counted_by_model_and_class_with_the_oldest_of_each(database: Database) -> None:
    oldest = await queued(database, cost=100, created_at=ago(minutes=5))
    await release(database, oldest)
    unreleased = await queued(database, cost=20, created_at=ago(minutes=1))
    await queued(database, cost=3, service_class="bulk", not_before=now().replace(year=now().year + 1))

    bulk, standard = (await look(database)).backlogs

    assert (standard.jobs, standard.tokens, standard.released, standard.scheduled) == (2, 120, 1, 0)
    assert (standard.oldest, standard.oldest_unreleased) == (oldest.created_at, unreleased.created_at)
    assert (bulk.jobs, bulk.tokens, bulk.scheduled, bulk.oldest) == (0, 0, 1, None)


async def test_running_jobs_and_overdue_leases_are_counted(database: Database) -> None:
    await running(database)
    await running(database, lease=OVER)

    ledger = await look(database)

    assert ledger.running == {"tiny": 2}
    assert ledger.overdue_leases == 1


async def test_only_dead_letters_that_nobody_settled_count(database: Database) -> None:
    open_one, settled = await running(database), await running(database)
    async with database.begin() as connection:
        await connection.execute(
            table(DeadLetter).insert(),
            [
                {"job_id": open_one.id, "died_at": now(), "discarded_at": None},
                {"job_id": settled.id, "died_at": now(), "discarded_at": now()},
            ],
        )

    assert (await look(database)).dead_letters == 1


async def test_the_tenant_that_fills_the_queue_comes_first(database: Database) -> None:
    await _tenants(database, TENANT, "other", "idle")
    first = await queued(database, tenant_id="other", cost=500, created_at=ago(minutes=2))
    await queued(database, tenant_id="other", cost=500)
    await queued(database, cost=10)
    await running(database)

    async with database.read() as connection:
        loads = await overview.loads(connection)

    assert [(load.name, load.waiting, load.tokens, load.running) for load in loads] == [
        ("other", 2, 1000, 0),
        (TENANT, 1, 10, 1),
    ]
    assert loads[0] == TenantLoad("other", "other", 2, 1000, 0, first.created_at)


async def _tenants(database: Database, *names: str) -> None:
    async with database.begin() as connection:
        for name in names:
            await access.add_tenant(connection, TenantRow(name, name, now()))


async def test_open_batches_are_counted_by_status_with_the_lines_that_are_left(database: Database) -> None:
    values = {"tenant_id": TENANT, "endpoint": "/v1/chat/completions", "input_file_id": "file_1"}
    values |= {"models": ["tiny"], "problems": [], "metadata": {}}
    values |= {"service_class": "bulk", "completion_window": "24h", "created_at": now(), "expires_at": now()}
    rows = [
        {
            "id": "batch_1",
            "status": "in_progress",
            "total": 10,
            "completed": 3,
            "failed": 1,
            "finished_at": None,
        },
        {
            "id": "batch_2",
            "status": "in_progress",
            "total": 5,
            "completed": 0,
            "failed": 0,
            "finished_at": None,
        },
        {
            "id": "batch_3",
            "status": "validating",
            "total": 0,
            "completed": 0,
            "failed": 0,
            "finished_at": None,
        },
        {
            "id": "batch_4",
            "status": "completed",
            "total": 7,
            "completed": 7,
            "failed": 0,
            "finished_at": now(),
        },
    ]
    async with database.begin() as connection:
        await connection.execute(table(Batch).insert(), [values | row for row in rows])

    batches = (await look(database)).batches

    assert batches.by_status == {"in_progress": 2, "validating": 1}
    assert batches.lines == 11
