"""The one way a job's end is written down: its result, and in the same transaction whom to tell."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import JSON, FromClause, Insert, Row, Select, Table, and_, cast, insert, null, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from models.batch_tables import BatchTally
from models.dialect import insert_rows
from models.lifecycle import Status
from models.membership import Among
from models.repositories import changes, dead_letters, usage, webhook_events
from models.tables import Job, Payload, Result

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_payloads: Final[Table] = Payload.__table__  # type: ignore[assignment]
_tallies: Final[Table] = BatchTally.__table__  # type: ignore[assignment]
_results: Final[Table] = Result.__table__  # type: ignore[assignment]

# What is asked of a job that has just ended.
ENDED: Final = (
    "id",
    "attempt",
    "status",
    "version",
    "finished_at",
    "tenant_id",
    "key_id",
    "model",
    "service_class",
    "batch_id",
)
DOCUMENTS: Final = ("output", "usage", "timings", "error", "degradation")


def keeping(moved: FromClause) -> Insert:
    """Writes the results of a statement that moved jobs: `moved` has their rows, and documents as text.

    Whoever moves jobs so owes them `follow`.
    """
    documents = [cast(moved.c[name], JSON) for name in DOCUMENTS]
    rows = select(moved.c.id, moved.c.attempt, moved.c.expires_at, *documents)
    return insert(_results).from_select(["job_id", "attempt", "expires_at", *DOCUMENTS], rows)


def ended(jobs: FromClause) -> Select[Any]:
    """`ENDED` of each of these jobs, and whether somebody wants to hear of its end."""
    columns = jobs.c
    heard = and_(
        columns.batch_id.is_(None),
        or_(_payloads.c.webhook.is_not(null()), webhook_events.has_endpoint(columns.tenant_id)),
    )
    return select(*(columns[name] for name in ENDED), heard.label("heard")).select_from(
        jobs.outerjoin(_payloads, _payloads.c.job_id == columns.id)
    )


async def record_results(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
    """`rows` are those of jobs that this transaction has just moved to a terminal status."""
    await insert_rows(connection, _results, rows)
    reasons: defaultdict[str | None, list[str]] = defaultdict(list)
    for row in rows:
        reasons[(row.get("error") or {}).get("code")].append(row["job_id"])
    for reason, job_ids in reasons.items():
        await changes.record(connection, job_ids, reason)
    by_job = {row["job_id"]: row for row in rows}
    standing = await connection.execute(ended(_jobs).where(Among(_jobs.c.id, list(by_job))))
    await follow(connection, by_job, standing.all())


async def follow(
    connection: AsyncConnection, results: Mapping[str, Mapping[str, Any]], jobs: Sequence[Row[Any]]
) -> None:
    """What the end of these jobs means to others; `results` by job id, `jobs` as `ended` finds them."""
    dead = [job.id for job in jobs if (results[job.id].get("error") or {}).get("code") == dead_letters.CODE]
    await dead_letters.note(connection, dead)
    await webhook_events.tell(connection, {job.id: results[job.id] for job in jobs if job.heard})
    await _tally(connection, jobs)
    # Last: the sums of a day are rows that many transactions wait for.
    await usage.account(connection, results, jobs)


async def _tally(connection: AsyncConnection, jobs: Sequence[Row[Any]]) -> None:
    """How many lines of each batch have just ended: one row, so that workers never wait for a counter."""
    lines = [job for job in jobs if job.batch_id is not None]
    if not lines:
        return
    counts = Counter((job.batch_id, job.status == Status.COMPLETED.value) for job in lines)
    rows = [
        {"batch_id": batch_id, "completed": counts[batch_id, True], "failed": counts[batch_id, False]}
        for batch_id in sorted({job.batch_id for job in lines})
    ]
    await connection.execute(insert(_tallies).values(rows))
