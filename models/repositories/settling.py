"""The end of a group of attempts in one statement, where the database changes several tables in one."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import orjson
from sqlalchemy import (
    CTE,
    JSON,
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
    cast,
    column,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Now
from models.lifecycle import Status, sources
from models.repositories import changes, results
from models.tables import Job, Lease, Result

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_leases: Final[Table] = Lease.__table__  # type: ignore[assignment]
_results: Final[Table] = Result.__table__  # type: ignore[assignment]

_DOCUMENTS: Final = ("output", "usage", "timings", "error", "degradation")
_GIVEN: Final[dict[str, Any]] = {
    "job_id": Text(),
    "attempt": BigInteger(),
    "reason": Text(),
    "expires_at": DateTime(timezone=True),
    **{name: Text() for name in _DOCUMENTS},
}
_MOVED: Final = (*results.ENDED, "worker")


def from_running(status: Status) -> list[str]:
    """Where an attempt may end from. Not QUEUED: an unclaimed job has no attempt."""
    return [source.value for source in sources(status) if source is not Status.QUEUED]


async def settle_at_once(
    connection: AsyncConnection, status: Status, rows: Sequence[Mapping[str, Any]]
) -> Sequence[Row[Any]]:
    """Moves the jobs, keeps their results, notes the change and drops the leases; see `results.follow`.

    A row whose attempt does not own its job any more changes nothing, and is missing from the answer.
    """
    given: dict[str, list[Any]] = {
        "job_id": [row["job_id"] for row in rows],
        "attempt": [row["attempt"] for row in rows],
        "reason": [(row["error"] or {}).get("code") for row in rows],
        "expires_at": [row["expires_at"] for row in rows],
    }
    given |= {name: [_text(row[name]) for row in rows] for name in _DOCUMENTS}
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
            *(ended.c[name] for name in ("reason", "expires_at", *_DOCUMENTS)),
        )
        .cte("moved")
    )
    following = (one.cte() for one in _following(moved))
    return results.ended(moved).add_cte(*following)


def _following(moved: CTE) -> tuple[Insert | Delete, ...]:
    """What an end entails: its place in the timeline, its result, the end of its lease."""
    documents = [cast(moved.c[name], JSON) for name in _DOCUMENTS]
    result = select(moved.c.id, moved.c.attempt, moved.c.expires_at, *documents)
    held = tuple_(_leases.c.job_id, _leases.c.attempt)
    return (
        changes.noting(moved, moved.c.reason),
        insert(_results).from_select(["job_id", "attempt", "expires_at", *_DOCUMENTS], result),
        delete(_leases).where(held.in_(select(moved.c.id, moved.c.attempt))),
    )
