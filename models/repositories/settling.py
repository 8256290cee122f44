"""The end of a group of attempts in one statement, where the database changes several tables in one."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import orjson
from sqlalchemy import (
    CTE,
    BigInteger,
    DateTime,
    Delete,
    Insert,
    Row,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    column,
    delete,
    func,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Now
from models.lifecycle import Status, sources
from models.repositories import changes, results
from models.tables import Job, Lease

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_leases: Final[Table] = Lease.__table__  # type: ignore[assignment]

_GIVEN: Final[dict[str, Any]] = {
    "job_id": Text(),
    "attempt": BigInteger(),
    "reason": Text(),
    "expires_at": DateTime(timezone=True),
    **{name: Text() for name in results.DOCUMENTS},
}
_MOVED: Final = (*results.ENDED, "worker")


def from_running(status: Status) -> list[str]:
    """Where an attempt may end from. Not QUEUED: an unclaimed job has no attempt."""
    return [source.value for source in sources(status) if source is not Status.QUEUED]


async def settle_at_once(
    connection: AsyncConnection, groups: Mapping[Status, Sequence[Mapping[str, Any]]]
) -> Sequence[Row[Any]]:
    """Moves the jobs, keeps their results, notes the changes, drops the leases, and tells whom it concerns.

    `groups` are rows of results by the status that they end in. `results.ENDED` of each job that moved comes
    back; one that is missing is another attempt's, and nothing of it was changed.
    """
    moved = [job for status, rows in groups.items() for job in await _move(connection, status, rows)]
    given = {(row["job_id"], row["attempt"]): row for rows in groups.values() for row in rows}
    await results.follow(connection, {job.id: given[job.id, job.attempt] for job in moved}, moved)
    return moved


async def _move(
    connection: AsyncConnection, status: Status, rows: Sequence[Mapping[str, Any]]
) -> Sequence[Row[Any]]:
    given: dict[str, list[Any]] = {
        "job_id": [row["job_id"] for row in rows],
        "attempt": [row["attempt"] for row in rows],
        "reason": [(row["error"] or {}).get("code") for row in rows],
        "expires_at": [row["expires_at"] for row in rows],
    }
    given |= {name: [_text(row[name]) for row in rows] for name in results.DOCUMENTS}
    named = {f"given_{name}": values for name, values in given.items()}
    moved: Sequence[Row[Any]] = (await connection.execute(_statement(status), named)).all()
    return moved


def _text(document: dict[str, Any] | None) -> str | None:
    return None if document is None else orjson.dumps(document).decode()


@cache
def _statement(status: Status) -> Select[Any]:
    """Made once: to put it together costs more than to run it."""
    # A parameter that has a column's name would be one of the values that are set.
    given = {name: bindparam(f"given_{name}", type_=ARRAY(kind)) for name, kind in _GIVEN.items()}
    columns = [column(name, kind) for name, kind in _GIVEN.items()]
    ended = func.unnest(*given.values()).table_valued(*columns).render_derived(name="ended")
    moved = (
        update(_jobs)
        .where(
            # The first condition is the one that an index serves.
            _jobs.c.id == any_(given["job_id"]),
            _jobs.c.id == ended.c.job_id,
            _jobs.c.attempt == ended.c.attempt,
            _jobs.c.status.in_(from_running(status)),
        )
        .values(status=status.value, version=_jobs.c.version + 1, finished_at=Now())
        .returning(
            *(_jobs.c[name] for name in _MOVED),
            *(ended.c[name] for name in ("reason", "expires_at", *results.DOCUMENTS)),
        )
        .cte("moved")
    )
    following = (one.cte() for one in _following(moved))
    return results.ended(moved).add_cte(*following)


def _following(moved: CTE) -> tuple[Insert | Delete, ...]:
    """What an end entails: its place in the timeline, its result, the end of its lease."""
    held = tuple_(_leases.c.job_id, _leases.c.attempt)
    return (
        changes.noting(moved, moved.c.reason),
        results.keeping(moved),
        delete(_leases).where(held.in_(select(moved.c.id, moved.c.attempt))),
    )
