"""Models of which nothing new begins, because somebody said so."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Select, Table, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Database, Now
from models.repositories import fleet
from models.tables import Job, Lease, ModelHold, Outbox

_ALIVE: Final = timedelta(seconds=10)
# A worker looks, and then reports: one that reported this long after a hold has seen it.
_LOOKED: Final = timedelta(seconds=1)

_holds: Final[Table] = ModelHold.__table__  # type: ignore[assignment]
_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_leases: Final[Table] = Lease.__table__  # type: ignore[assignment]
_outbox: Final[Table] = Outbox.__table__  # type: ignore[assignment]


class Hold(StrEnum):
    """A drained model is to be left by its last job; otherwise the two are the same."""

    PAUSED = "paused"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class ModelActivity:
    """`queued` counts what waits anywhere, `running` what a worker holds under a lease.

    `obeyed`: every live worker of the model has looked since it was held, so that none begins another job.
    """

    name: str
    hold: Hold | None
    since: datetime | None
    queued: int
    running: int
    obeyed: bool = True

    @property
    def is_drained(self) -> bool:
        return self.hold is Hold.DRAINING and self.obeyed and not self.running


async def held(connection: AsyncConnection) -> frozenset[str]:
    return frozenset((await connection.execute(select(_holds.c.model))).scalars())


async def kinds(connection: AsyncConnection) -> dict[str, tuple[Hold, datetime]]:
    """How each held model is held, and since when."""
    return {row.model: (Hold(row.kind), row.since) for row in await connection.execute(select(_holds))}


async def put(database: Database, connection: AsyncConnection, model: str, hold: Hold) -> None:
    """The time of the first hold stays."""
    statement = database.insert(_holds).values(model=model, kind=hold.value, since=Now())
    await connection.execute(
        statement.on_conflict_do_update(index_elements=["model"], set_={"kind": statement.excluded.kind})
    )


async def lift(connection: AsyncConnection, model: str) -> None:
    await connection.execute(delete(_holds).where(_holds.c.model == model))


async def _counts(connection: AsyncConnection, statement: Select[Any]) -> dict[str, int]:
    return {name: count for name, count in await connection.execute(statement)}  # noqa: C416 - rows, not pairs


async def activity(connection: AsyncConnection, models: Sequence[str]) -> list[ModelActivity]:
    """What each of the models does now, in their order."""
    waiting = select(_outbox.c.model, func.count()).where(_outbox.c.model.in_(models))
    queued = await _counts(connection, waiting.group_by(_outbox.c.model))
    leased = select(_jobs.c.model, func.count()).join(_leases, _leases.c.job_id == _jobs.c.id)
    running = await _counts(connection, leased.group_by(_jobs.c.model))
    holds = await kinds(connection)
    workers = await fleet.alive(connection, within=_ALIVE)
    return [
        ModelActivity(
            name,
            holds[name][0] if name in holds else None,
            holds[name][1] if name in holds else None,
            queued.get(name, 0),
            running.get(name, 0),
            all(
                worker.seen_at > holds[name][1] + _LOOKED
                for worker in workers
                if name in holds and name in worker.slots
            ),
        )
        for name in models
    ]
