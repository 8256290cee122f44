"""Lines of batches: ended in ranges, and read in the order of their file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Table, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Now
from models.lifecycle import Status
from models.membership import Among
from models.repositories import changes, outbox
from models.repositories.results import record_results
from models.tables import Job, Lease, Outbox, Payload, Result

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_payloads: Final[Table] = Payload.__table__  # type: ignore[assignment]
_results: Final[Table] = Result.__table__  # type: ignore[assignment]
_leases: Final[Table] = Lease.__table__  # type: ignore[assignment]
_outbox: Final[Table] = Outbox.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class Line:
    """One line as its job now stands."""

    number: int
    custom_id: str
    job_id: str
    model: str
    status: Status
    created_at: datetime
    finished_at: datetime | None
    output: dict[str, Any] | None
    usage: dict[str, Any] | None
    error: dict[str, Any] | None
    degradation: dict[str, Any] | None


async def stop_releasing(connection: AsyncConnection, lanes: Sequence[str]) -> None:
    """At once, however many wait: their jobs are ended afterwards, in ranges."""
    await connection.execute(delete(_outbox).where(_outbox.c.lane.in_(lanes), _outbox.c.state == "waiting"))


async def end_queued(
    connection: AsyncConnection,
    batch_id: str,
    among: range,
    *,
    status: Status,
    error: dict[str, str] | None,
    expires_at: datetime,
) -> Counter[tuple[str, str]]:
    """Ends those of the lines `among` that have not begun; the number of them by model and class."""
    moved = await connection.execute(
        update(_jobs)
        .where(
            _jobs.c.batch_id == batch_id,
            _jobs.c.batch_line >= among.start,
            _jobs.c.batch_line < among.stop,
            _jobs.c.status == Status.QUEUED.value,
        )
        .values(status=status.value, version=_jobs.c.version + 1, finished_at=Now())
        .returning(_jobs.c.id, _jobs.c.attempt, _jobs.c.model, _jobs.c.service_class)
    )
    ended = moved.all()
    if ended:
        await record_results(
            connection,
            [
                {"job_id": row.id, "attempt": row.attempt, "error": error, "expires_at": expires_at}
                for row in ended
            ],
        )
        await outbox.remove(connection, [row.id for row in ended])
    return Counter((row.model, row.service_class) for row in ended)


async def ask_to_stop(connection: AsyncConnection, batch_id: str) -> list[str]:
    """Lines that run begin to be cancelled; their ids."""
    moved = await connection.execute(
        update(_jobs)
        .where(_jobs.c.batch_id == batch_id, _jobs.c.status == Status.RUNNING.value)
        .values(status=Status.CANCELLING.value, version=_jobs.c.version + 1)
        .returning(_jobs.c.id)
    )
    job_ids = list(moved.scalars())
    if job_ids:
        await connection.execute(
            update(_leases).where(Among(_leases.c.job_id, job_ids)).values(cancel_requested=True)
        )
        await changes.record(connection, job_ids, "cancel_requested")
    return job_ids


async def page(
    connection: AsyncConnection, batch_id: str, *, after: int, limit: int, completed: bool
) -> list[Line]:
    """Lines beyond number `after`, in the order of the file: those that completed, or those that will not."""
    wanted = _jobs.c.status == Status.COMPLETED.value
    rows = await connection.execute(
        select(
            _jobs.c.batch_line,
            _payloads.c.custom_id,
            _jobs.c.id,
            _jobs.c.model,
            _jobs.c.status,
            _jobs.c.created_at,
            _jobs.c.finished_at,
            _results.c.output,
            _results.c.usage,
            _results.c.error,
            _results.c.degradation,
        )
        .join(_payloads, _payloads.c.job_id == _jobs.c.id)
        .outerjoin(_results, _results.c.job_id == _jobs.c.id)
        .where(_jobs.c.batch_id == batch_id, _jobs.c.batch_line > after, wanted if completed else ~wanted)
        .order_by(_jobs.c.batch_line)
        .limit(limit)
    )
    return [_line(row) for row in rows]


def _line(row: Any) -> Line:
    values = list(row)
    values[1] = values[1] or ""
    values[4] = Status(values[4])
    return Line(*values)


async def last_number(connection: AsyncConnection, batch_id: str) -> int:
    """The highest number of a line that is a job; 0 where there is none."""
    found = await connection.execute(select(func.max(_jobs.c.batch_line)).where(_jobs.c.batch_id == batch_id))
    return found.scalar_one() or 0


async def numbers(connection: AsyncConnection, batch_id: str) -> set[int]:
    """Which lines of the file are jobs."""
    rows = await connection.execute(select(_jobs.c.batch_line).where(_jobs.c.batch_id == batch_id))
    return set(rows.scalars())
