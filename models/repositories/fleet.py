"""The workers that are alive, by their own heartbeats."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Table, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Database, Now
from models.tables import Worker

_workers: Final[Table] = Worker.__table__  # type: ignore[assignment]


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


async def sign_off(connection: AsyncConnection, name: str) -> None:
    await connection.execute(delete(_workers).where(_workers.c.name == name))


async def forget_silent(connection: AsyncConnection, *, after: timedelta) -> None:
    await connection.execute(delete(_workers).where(_workers.c.seen_at <= Now(-after)))
