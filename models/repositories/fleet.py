"""The workers that are alive, by their own heartbeats, and when those were there that have gone."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Table, case, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Database, Now
from models.shift_table import WorkerShift
from models.tables import Worker

_workers: Final[Table] = Worker.__table__  # type: ignore[assignment]
_shifts: Final[Table] = WorkerShift.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """`slots`: the jobs of each served name that it runs at once; `held`: its messages not claimed yet.

    `stats` is how it was at its last heartbeat: see `workers.vitals`.
    """

    name: str
    slots: dict[str, int]
    held: dict[str, int]
    state: str
    detail: str
    started_at: datetime
    seen_at: datetime
    stats: dict[str, Any] = field(default_factory=dict)


async def report(
    database: Database,
    connection: AsyncConnection,
    *,
    name: str,
    slots: dict[str, int],
    held: dict[str, int],
    state: str,
    detail: str = "",
    stats: dict[str, Any] | None = None,
) -> None:
    """A heartbeat: one upsert."""
    statement = database.insert(_workers).values(
        name=name,
        slots=slots,
        held=held,
        state=state,
        detail=detail,
        started_at=Now(),
        seen_at=Now(),
        stats=stats or {},
    )
    new = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"],
            set_={
                "slots": new.slots,
                "held": new.held,
                "state": new.state,
                "detail": new.detail,
                "seen_at": new.seen_at,
                "stats": new.stats,
            },
        )
    )


async def alive(connection: AsyncConnection, *, within: timedelta) -> list[WorkerRow]:
    statement = select(_workers).where(_workers.c.seen_at > Now(-within)).order_by(_workers.c.name)
    return [WorkerRow(*row) for row in await connection.execute(statement)]


@dataclass(frozen=True, slots=True)
class Shift:
    """A time that a worker was there, and the models that it served."""

    models: tuple[str, ...]
    started_at: datetime
    ended_at: datetime


async def sign_off(connection: AsyncConnection, name: str) -> None:
    """Its shift ends now."""
    await _end_shifts(connection, _workers.c.name == name, at_last_word=False)


async def forget_silent(connection: AsyncConnection, *, after: timedelta) -> None:
    """Shifts of workers that died end with their last word."""
    await _end_shifts(connection, _workers.c.seen_at <= Now(-after), at_last_word=True)


async def _end_shifts(connection: AsyncConnection, which: ColumnElement[bool], *, at_last_word: bool) -> None:
    columns = (_workers.c.name, _workers.c.slots, _workers.c.started_at, _workers.c.seen_at)
    gone = (await connection.execute(delete(_workers).where(which).returning(*columns))).all()
    for row in gone:
        await connection.execute(
            insert(_shifts).values(
                name=row.name,
                started_at=row.started_at,
                ended_at=row.seen_at if at_last_word else Now(),
                models=list(row.slots),
            )
        )


async def shifts(connection: AsyncConnection, since: datetime, *, alive_within: timedelta) -> list[Shift]:
    """Those that ended since then, and of workers that are silent or alive: until their last word, or now."""
    ended = await connection.execute(
        select(_shifts.c.models, _shifts.c.started_at, _shifts.c.ended_at).where(_shifts.c.ended_at > since)
    )
    last = case((_workers.c.seen_at > Now(-alive_within), Now()), else_=_workers.c.seen_at)
    known = await connection.execute(
        select(_workers.c.slots, _workers.c.started_at, last).where(_workers.c.seen_at > since)
    )
    return [Shift(tuple(models), started, until) for models, started, until in [*ended, *known]]


async def forget_shifts(connection: AsyncConnection, *, before: datetime) -> None:
    """Those that no report can ask for any more."""
    await connection.execute(delete(_shifts).where(_shifts.c.ended_at <= before))
