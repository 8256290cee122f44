"""Pins of the degradation policy, its audit, and what runs now."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Select, Table, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from core.ids import new_id
from models.dialect import Database, Now
from models.tables import DegradationChange, DegradationPin, Job, Lease

_pins: Final[Table] = DegradationPin.__table__  # type: ignore[assignment]
_changes: Final[Table] = DegradationChange.__table__  # type: ignore[assignment]
_leases: Final[Table] = Lease.__table__  # type: ignore[assignment]
_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_LONGEST_REASON: Final = 256


@dataclass(frozen=True, slots=True)
class Pin:
    model: str
    level: int
    expires_at: datetime
    actor: str


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a model's level, for the audit."""

    model: str
    before: int
    after: int
    rule: str
    reason: str
    actor: str
    reading: dict[str, Any] | None = None
    at: datetime | None = None


async def pin(
    database: Database, connection: AsyncConnection, model: str, level: int, *, lasts: timedelta, actor: str
) -> None:
    statement = database.insert(_pins).values(
        model=model, level=level, expires_at=Now(lasts), actor=actor, created_at=Now()
    )
    new = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["model"],
            set_={"level": new.level, "expires_at": new.expires_at, "actor": new.actor},
        )
    )


async def unpin(connection: AsyncConnection, model: str) -> None:
    await connection.execute(delete(_pins).where(_pins.c.model == model))


async def pins(connection: AsyncConnection) -> dict[str, Pin]:
    rows = await connection.execute(
        select(_pins.c.model, _pins.c.level, _pins.c.expires_at, _pins.c.actor).where(
            _pins.c.expires_at > Now()
        )
    )
    return {row.model: Pin(*row) for row in rows}


async def running(connection: AsyncConnection) -> dict[str, int]:
    """Jobs that workers hold, by model."""
    rows = await connection.execute(
        select(_jobs.c.model, func.count().label("jobs"))
        .select_from(_leases.join(_jobs, _jobs.c.id == _leases.c.job_id))
        .group_by(_jobs.c.model)
    )
    return {row.model: row.jobs for row in rows}


async def record(connection: AsyncConnection, changes: Sequence[Change]) -> None:
    await connection.execute(
        insert(_changes).values(
            [
                {
                    "id": new_id("deg"),
                    "at": Now(),
                    "model": one.model,
                    "before": int(one.before),
                    "after": int(one.after),
                    "rule": one.rule,
                    "reason": one.reason[:_LONGEST_REASON],
                    "actor": one.actor,
                    "reading": one.reading,
                }
                for one in changes
            ]
        )
    )


async def forget(connection: AsyncConnection, *, older: timedelta, limit: int) -> int:
    """Changes from longer ago, at most `limit` of them; the number that went."""
    old = select(_changes.c.id).where(_changes.c.at < Now(-older)).order_by(_changes.c.at).limit(limit)
    return (await connection.execute(delete(_changes).where(_changes.c.id.in_(old)))).rowcount


async def history(connection: AsyncConnection, *, limit: int) -> list[Change]:
    """The last changes, newest first."""
    rows = await connection.execute(_newest_first().limit(limit))
    return [Change(*row) for row in rows]


async def changes_since(connection: AsyncConnection, since: datetime) -> list[Change]:
    """Newest first."""
    rows = await connection.execute(_newest_first().where(_changes.c.at >= since))
    return [Change(*row) for row in rows]


def _newest_first() -> Select[Any]:
    c = _changes.c
    columns = (c.model, c.before, c.after, c.rule, c.reason, c.actor, c.reading, c.at)
    return select(*columns).order_by(c.at.desc(), c.id.desc())
