"""Jobs in every state, in one line each, and what the tables then hold: for tests of the repositories."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Table, delete, select, text, update

from core.ids import new_id
from models.dialect import Database
from models.lifecycle import Status
from models.repositories import execution, jobs, outbox, submission
from models.repositories.execution import Claim, Ending
from models.repositories.submission import NewJob, Receipt
from models.tables import Base, Feedback, IdempotencyKey, Job, JobTag, Lease, Outbox, Payload, Result
from models.views import JobView

TENANT: Final = "acme"
HOUR: Final = timedelta(hours=1)
OVER: Final = timedelta(seconds=-1)  # a lease that has run out when it begins


def now() -> datetime:
    return datetime.now(UTC)


def ago(**span: float) -> datetime:
    return now() - timedelta(**span)


def table(entity: type[Base]) -> Table:
    found = entity.__table__
    assert isinstance(found, Table)
    return found


JOBS, PAYLOADS, RESULTS, LEASES, OUTBOX, TAGS, KEYS, FEEDBACK = (
    table(entity) for entity in (Job, Payload, Result, Lease, Outbox, JobTag, IdempotencyKey, Feedback)
)


def new_job(**changes: Any) -> NewJob:
    fields: dict[str, Any] = {
        "id": new_id("job"),
        "tenant_id": TENANT,
        "model": "tiny",
        "service_class": "standard",
        "priority": 5,
        "cost": 10,
        "fingerprint": "f" * 32,
        "request": {"prompt": "Hello."},
        "created_at": now(),
    }
    return NewJob(**fields | changes)


async def accept(database: Database, *group: NewJob) -> list[Receipt]:
    async with database.begin() as connection:
        return await submission.accept(database, connection, group)


async def queued(database: Database, **changes: Any) -> NewJob:
    job = new_job(**changes)
    await accept(database, job)
    return job


async def claim(
    database: Database, *wanted: tuple[str, int], worker: str = "w1", lease: timedelta = HOUR
) -> list[Claim]:
    async with database.begin() as connection:
        return await execution.claim(connection, wanted, worker=worker, lease=lease)


async def running(
    database: Database, *, worker: str = "w1", lease: timedelta = HOUR, **changes: Any
) -> JobView:
    job = await queued(database, **changes)
    [claimed] = await claim(database, (job.id, 0), worker=worker, lease=lease)
    return claimed.view


async def cancelling(database: Database, *, lease: timedelta = HOUR, **changes: Any) -> JobView:
    view = await running(database, lease=lease, **changes)
    assert await cancel(database, view.id)
    return view


async def finished(
    database: Database,
    status: Status = Status.COMPLETED,
    *,
    expires_at: datetime | None = None,
    **changes: Any,
) -> JobView:
    view = await running(database, **changes)
    await settle(database, ending(view, status, expires_at=expires_at or now() + HOUR))
    return await read(database, view.id)


def ending(view: JobView, status: Status = Status.COMPLETED, **changes: Any) -> Ending:
    fields: dict[str, Any] = {"job_id": view.id, "attempt": view.attempt, "expires_at": now() + HOUR}
    if status is Status.COMPLETED:
        fields["output"] = {"text": "Hello to you."}
    return Ending(status=status, **fields | changes)


async def settle(database: Database, *endings: Ending) -> set[tuple[str, int]]:
    async with database.begin() as connection:
        return set(await execution.settle(connection, endings))


async def give_back(
    database: Database, *views: JobView, excused: bool = False, delay: timedelta = timedelta()
) -> list[str]:
    attempts = [(view.id, view.attempt) for view in views]
    async with database.begin() as connection:
        return await execution.give_back(database, connection, attempts, excused=excused, delay=delay)


async def cancel(database: Database, job_id: str, *, tenant_id: str = TENANT) -> bool:
    async with database.begin() as connection:
        return await jobs.cancel(connection, tenant_id, job_id, expires_at=now() + HOUR)


async def read(database: Database, job_id: str, *, tenant_id: str = TENANT) -> JobView:
    async with database.read() as connection:
        view = await jobs.read(connection, tenant_id, job_id)
    assert view is not None
    return view


async def release(database: Database, *released: NewJob) -> None:
    async with database.begin() as connection:
        await outbox.mark_released(connection, [(job.id, 0) for job in released])


async def rows(database: Database, of: Table, job_id: str | None = None) -> list[Any]:
    """All rows, or those of one job."""
    statement = select(of)
    if job_id is not None:
        statement = statement.where(of.c["id" if of is JOBS else "job_id"] == job_id)
    async with database.read() as connection:
        return list(await connection.execute(statement))


async def move_time(database: Database, of: Table, job_id: str, **columns: Any) -> None:
    """What a test would otherwise have to wait for."""
    key = of.c["id" if of is JOBS else "job_id"]
    async with database.begin() as connection:
        await connection.execute(update(of).where(key == job_id).values(**columns))


async def clear(database: Database) -> None:
    """No job is left."""
    async with database.begin() as connection:
        for of in (OUTBOX, LEASES, KEYS, JOBS):
            await connection.execute(delete(of))


@asynccontextmanager
async def meanwhile(database: Database, work: Any) -> AsyncIterator["asyncio.Task[Any]"]:
    """`work` has begun and waits for a lock that the caller holds; it ends after the block."""
    task = asyncio.ensure_future(work)
    if not database.is_sqlite:
        async with asyncio.timeout(10), database.read() as connection:
            while not task.done() and not await _somebody_waits(connection):
                pass
    yield task


async def _somebody_waits(connection: Any) -> bool:
    waiting = await connection.execute(
        text(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
    )
    await connection.rollback()  # or the view would be the first one's
    return bool(waiting.scalar_one())
