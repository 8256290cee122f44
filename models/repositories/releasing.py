"""What a relay looks at before each release, in one statement."""

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import CompoundSelect, Select, Table, func, literal, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from models.tables import ModelHold, Outbox

_outbox: Final[Table] = Outbox.__table__  # type: ignore[assignment]
_holds: Final[Table] = ModelHold.__table__  # type: ignore[assignment]

_WAITING, _RELEASED, _HELD = "waiting", "released", "held"


@dataclass(frozen=True, slots=True)
class Standing:
    """The lanes that wait, how many jobs of each were released and not yet claimed, and the held models."""

    lanes: list[str]
    released: dict[str, int]
    held: frozenset[str]


async def look(connection: AsyncConnection) -> Standing:
    rows = (await connection.execute(_look())).all()
    return Standing(
        lanes=[row.name for row in rows if row.kind == _WAITING],
        released={row.name: row.jobs for row in rows if row.kind == _RELEASED},
        held=frozenset(row.name for row in rows if row.kind == _HELD),
    )


@cache
def _look() -> CompoundSelect[Any]:
    """Made once: it never changes, and a relay asks it many times a second."""
    released = (
        select(literal(_RELEASED).label("kind"), _outbox.c.lane.label("name"), func.count().label("jobs"))
        .where(_outbox.c.state == "released")
        .group_by(_outbox.c.lane)
    )
    held = select(literal(_HELD), _holds.c.model, literal(0))
    return union_all(released, _waiting(), held)


def _waiting() -> Select[Any]:
    """Every lane with something to release: one index probe per lane, however long the lanes are."""
    waiting = _outbox.c.state == "waiting"
    lanes = select(func.min(_outbox.c.lane).label("lane")).where(waiting).cte("lanes", recursive=True)
    following = (
        select(func.min(_outbox.c.lane)).where(waiting, _outbox.c.lane > lanes.c.lane).scalar_subquery()
    )
    lanes = lanes.union_all(select(following).where(lanes.c.lane.is_not(None)))
    return select(literal(_WAITING), lanes.c.lane, literal(0)).where(lanes.c.lane.is_not(None))
