"""The one way a job's end is written down: its result, and in the same transaction whom to tell."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Table, case, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from models.batch_tables import BatchTally
from models.dialect import insert_rows
from models.lifecycle import Status
from models.membership import Among
from models.repositories import changes, dead_letters, usage, webhook_events
from models.tables import Job, Result

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_tallies: Final[Table] = BatchTally.__table__  # type: ignore[assignment]
_results: Final[Table] = Result.__table__  # type: ignore[assignment]


async def record_results(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    """`rows` are those of jobs that this transaction has just moved to a terminal status."""
    await insert_rows(connection, _results, rows)
    reasons: defaultdict[str | None, list[str]] = defaultdict(list)
    for row in rows:
        reasons[(row.get("error") or {}).get("code")].append(row["job_id"])
    for reason, job_ids in reasons.items():
        await changes.record(connection, job_ids, reason)
    await dead_letters.note(connection, reasons[dead_letters.CODE])
    by_job = {row["job_id"]: row for row in rows}
    await webhook_events.tell(connection, by_job)
    await _tally(connection, list(by_job))
    # Last: the sums of a day are rows that many transactions wait for.
    await usage.account(connection, by_job)


async def _tally(connection: AsyncConnection, job_ids: Sequence[str]) -> None:
    """How many lines of each batch have just ended: one row, so that workers never wait for a counter."""
    completed = func.count(case((_jobs.c.status == Status.COMPLETED.value, 1)))
    ended = (
        select(_jobs.c.batch_id, completed, func.count() - completed)
        .where(Among(_jobs.c.id, job_ids), _jobs.c.batch_id.is_not(None))
        .group_by(_jobs.c.batch_id)
    )
    await connection.execute(insert(_tallies).from_select(["batch_id", "completed", "failed"], ended))
