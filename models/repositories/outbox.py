"""The queue that is true: what waits, what was released to the broker, and for whom."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    case,
    delete,
    func,
    literal,
    select,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Now, skip_locked
from models.membership import Among, PairAmong, named_pairs
from models.tables import Outbox
from models.views import JobView
from models.waiting import Ahead, Waiting

_outbox: Final[Table] = Outbox.__table__  # type: ignore[assignment]
SEPARATOR: Final = "\x1f"
_MOST_PREFIXES: Final = 32  # per lane and round
_MOST_TRAILS: Final = 16
_LENGTHS: Final = tuple(4 * 2**n for n in range(7, -1, -1))  # characters of a trail, 1 to 128 chunks
BELL: Final = "release"  # rung after the commit that made rows wait


def lane(model: str, service_class: str, tenant_id: str, batch_id: str | None = None) -> str:
    """Jobs of one lane differ only in priority, prefix and age; lanes can be listed without a scan.

    Each batch has a lane of its own, so that a long one stands in no other's way.
    """
    parts = (model, service_class, tenant_id)
    return SEPARATOR.join(parts if batch_id is None else (*parts, batch_id))


def lane_parts(name: str) -> tuple[str, str, str, str | None]:
    """Model, class, tenant, and the batch whose lane it is."""
    model, service_class, tenant_id, *batch = name.split(SEPARATOR)
    return model, service_class, tenant_id, batch[0] if batch else None


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """A row that may be released; `rank` is 9 - priority."""

    job_id: str
    generation: int
    model: str
    service_class: str
    tenant_id: str
    rank: int
    cost: int
    prefix: str | None
    prefix_tokens: int
    created_at: datetime
    deadline: datetime | None
    attempts: int = 0  # that count
    strikes: int = 0
    trace: str | None = None
    batch_id: str | None = None
    trail: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose kin is looked for in a lane: names of prefixes, and beginnings of trails by their length."""

    lane: str
    names: tuple[str, ...]
    heads: Mapping[int, tuple[str, ...]]
    limit: int

    @classmethod
    def of(cls, lane: str, begun: Iterable[tuple[str | None, str | None]], *, limit: int) -> "Wanted":
        """From (name, trail) pairs, the first of each.

        Trails are compared at lengths that double: the order knows exactly, here it only must find them.
        """
        pairs = list(begun)
        names = dict.fromkeys(name for name, _ in pairs if name)
        trails = list(dict.fromkeys(trail for _, trail in pairs if trail))[:_MOST_TRAILS]
        heads = {
            length: tuple(dict.fromkeys(trail[:length] for trail in trails if len(trail) >= length))
            for length in _LENGTHS
        }
        return cls(
            lane,
            tuple(names)[:_MOST_PREFIXES],
            {length: found for length, found in heads.items() if found},
            limit,
        )


_WAITING_COLUMNS: Final = [_outbox.c[name] for name in WaitingRow.__slots__]


async def released_counts(connection: AsyncConnection) -> dict[str, int]:
    """Jobs per lane that were released and not yet claimed; the relay keeps them few."""
    rows = await connection.execute(
        select(_outbox.c.lane, func.count().label("jobs"))
        .where(_outbox.c.state == "released")
        .group_by(_outbox.c.lane)
    )
    return {row.lane: row.jobs for row in rows}


async def waiting_counts(connection: AsyncConnection) -> dict[tuple[str, str], tuple[int, int]]:
    """Jobs and tokens that wait, per model and class, released ones included. Reads the whole index."""
    rows = await connection.execute(
        select(
            _outbox.c.model,
            _outbox.c.service_class,
            func.count().label("jobs"),
            func.sum(_outbox.c.cost).label("tokens"),
        )
        .where(_outbox.c.state != "scheduled")
        .group_by(_outbox.c.model, _outbox.c.service_class)
    )
    return {(row.model, row.service_class): (row.jobs, int(row.tokens)) for row in rows}


async def pressure(connection: AsyncConnection) -> dict[tuple[str, str], Waiting]:
    """What waits per model and class, released ones included. Reads the whole index."""
    rows = await connection.execute(
        select(
            _outbox.c.model,
            _outbox.c.service_class,
            func.count().label("jobs"),
            func.sum(_outbox.c.cost).label("tokens"),
            func.min(_outbox.c.created_at).label("oldest"),
            Now().label("now"),
        )
        .where(_outbox.c.state != "scheduled")
        .group_by(_outbox.c.model, _outbox.c.service_class)
    )
    return {
        (row.model, row.service_class): Waiting(
            row.jobs, int(row.tokens), max(0.0, (row.now - row.oldest).total_seconds())
        )
        for row in rows
    }


async def count_up_to(connection: AsyncConnection, limit: int) -> int:
    """Waiting jobs of all kinds, counted no further than `limit`."""
    some = select(literal(1)).select_from(_outbox).limit(limit).subquery()
    return (await connection.execute(select(func.count()).select_from(some))).scalar_one()


async def candidates(
    connection: AsyncConnection, lanes: Sequence[tuple[str, int]], *, aged: timedelta | None = None
) -> list[WaitingRow]:
    """The best rows of each `(lane, limit)`, best first, locked where the database can.

    Best is highest priority, then first come; with `aged`, rows older than that, oldest first.
    """
    parts = [_best_of_lane(name, limit, aged) for name, limit in lanes if limit > 0]
    return await _locked(connection, parts, by_age=aged is not None)


async def kin(connection: AsyncConnection, wanted: Sequence[Wanted], *, among: int) -> list[WaitingRow]:
    """Rows that begin as is wanted, the first names' first, then those that share most; locked likewise.

    Looks no further than a lane's first `among` rows: what matters is near, and no index leads to it.
    """
    parts = [_kin_of_lane(one, among) for one in wanted if one.names or one.heads]
    return await _locked(connection, parts, by_age=False)


async def _locked(
    connection: AsyncConnection, parts: Sequence[Select[Any]], *, by_age: bool
) -> list[WaitingRow]:
    if not parts:
        return []
    best = union_all(*(select(part.subquery().c.job_id) for part in parts)).subquery()
    arrival = (_outbox.c.created_at, _outbox.c.job_id)
    statement = skip_locked(
        select(*_WAITING_COLUMNS)
        .where(_outbox.c.job_id.in_(select(best.c.job_id)), _outbox.c.state == "waiting")
        .order_by(*arrival if by_age else (_outbox.c.rank, *arrival))
    )
    return [WaitingRow(*row) for row in await connection.execute(statement)]


def _place_among(value: ColumnElement[str], known: Sequence[str], first: int) -> ColumnElement[int]:
    """The place of a value among those known, counted from `first`; NULL where it is not."""
    return case({one: first + place for place, one in enumerate(known)}, value=value)


def _kin_of_lane(wanted: Wanted, among: int) -> Select[Any]:
    columns = (_outbox.c.job_id, _outbox.c.prefix, _outbox.c.trail, _outbox.c.rank, _outbox.c.created_at)
    order = (_outbox.c.rank, _outbox.c.created_at, _outbox.c.job_id)
    waiting = select(*columns).where(_outbox.c.state == "waiting", _outbox.c.lane == wanted.lane)
    near = waiting.order_by(*order).limit(among).subquery()
    turns = [_place_among(near.c.prefix, wanted.names, 0)] if wanted.names else []
    turns += [
        _place_among(func.substr(near.c.trail, 1, length), heads, _MOST_PREFIXES + step * _MOST_TRAILS)
        for step, (length, heads) in enumerate(wanted.heads.items())
    ]
    turn = turns[0] if len(turns) == 1 else func.coalesce(*turns)  # SQLite's takes two or more
    alike = select(near.c.job_id).where(turn.is_not(None))
    return alike.order_by(near.c.rank, turn, near.c.created_at, near.c.job_id).limit(wanted.limit)


def _best_of_lane(name: str, limit: int, aged: timedelta | None) -> Select[Any]:
    statement = select(_outbox.c.job_id).where(_outbox.c.state == "waiting", _outbox.c.lane == name)
    if aged is not None:
        return statement.where(_outbox.c.created_at < Now(-aged)).order_by(_outbox.c.created_at).limit(limit)
    order = (_outbox.c.rank, _outbox.c.created_at, _outbox.c.job_id)
    return statement.order_by(*order).limit(limit)


_RELEASING: Final = (
    update(_outbox)
    .where(PairAmong.named(_outbox.c.job_id, _outbox.c.generation, "released"))
    .values(state="released", released_at=Now())
)


async def mark_released(connection: AsyncConnection, rows: Sequence[tuple[str, int]]) -> None:
    """`rows` are (job id, generation) pairs that are about to go to the broker."""
    if rows:
        await connection.execute(_RELEASING, named_pairs("released", rows))


async def take_back_messages(connection: AsyncConnection, messages: Sequence[tuple[str, int]]) -> None:
    """Released rows whose message, `(job id, generation)`, the broker did not confirm are waiting again."""
    await connection.execute(
        update(_outbox)
        .where(PairAmong(_outbox.c.job_id, _outbox.c.generation, messages), _outbox.c.state == "released")
        .values(state="waiting", released_at=None)
    )


async def promote_scheduled(connection: AsyncConnection) -> int:
    """Rows whose time has come begin to wait; the number of them."""
    result = await connection.execute(
        update(_outbox)
        .where(_outbox.c.state == "scheduled", _outbox.c.available_at <= Now())
        .values(state="waiting", available_at=None)
    )
    return result.rowcount


async def next_scheduled(connection: AsyncConnection) -> datetime | None:
    statement = select(func.min(_outbox.c.available_at)).where(_outbox.c.state == "scheduled")
    earliest: datetime | None = (await connection.execute(statement)).scalar_one_or_none()
    return earliest


def late(*, limit: int) -> Select[Any]:
    """The ids of jobs that may not start any more: their longest wait or their deadline has passed."""
    return select(_outbox.c.job_id).where(_outbox.c.expires_at <= Now()).limit(limit)


async def take_back(connection: AsyncConnection, *, model: str, released_for: timedelta) -> int:
    """Released rows that nobody claimed for so long are waiting again; the number of them."""
    result = await connection.execute(
        update(_outbox)
        .where(
            _outbox.c.state == "released",
            _outbox.c.model == model,
            _outbox.c.released_at <= Now(-released_for),
        )
        .values(state="waiting", released_at=None)
    )
    return result.rowcount


async def release_follow_ups(connection: AsyncConnection, models: Sequence[str]) -> int:
    """Rows that wait for no time but for calm are waiting for the relay; the number of them."""
    result = await connection.execute(
        update(_outbox)
        .where(
            _outbox.c.state == "scheduled",
            _outbox.c.available_at.is_(None),
            _outbox.c.model.in_(models),
        )
        .values(state="waiting")
    )
    return result.rowcount


async def release_again(
    connection: AsyncConnection, messages: Sequence[tuple[str, int]], *, after: timedelta
) -> int:
    """Released rows whose message, `(job id, generation)`, the broker gave up; the number that wait again.

    Not at once: what made the broker give it up may last.
    """
    result = await connection.execute(
        update(_outbox)
        .where(
            PairAmong(_outbox.c.job_id, _outbox.c.generation, messages),
            _outbox.c.state == "released",
        )
        .values(state="scheduled", available_at=Now(after), released_at=None)
    )
    return result.rowcount


async def take_back_all(connection: AsyncConnection) -> None:
    """Everything released waits again: a broker that dies with its process has lost it."""
    await connection.execute(
        update(_outbox).where(_outbox.c.state == "released").values(state="waiting", released_at=None)
    )


async def released_by_model(connection: AsyncConnection) -> dict[str, int]:
    counts: defaultdict[str, int] = defaultdict(int)
    for name, jobs in (await released_counts(connection)).items():
        counts[lane_parts(name)[0]] += jobs
    return dict(counts)


async def remove(connection: AsyncConnection, job_ids: Sequence[str]) -> None:
    if job_ids:
        await connection.execute(delete(_outbox).where(Among(_outbox.c.job_id, job_ids)))


async def ahead(connection: AsyncConnection, jobs: Sequence[JobView], *, limit: int) -> dict[str, Ahead]:
    """What of the same model and class came before each job, for those among the first `limit` that wait."""
    kinds = defaultdict(list)
    for job in jobs:
        kinds[job.model, job.service_class].append(job.id)
    found: dict[str, Ahead] = {}
    for (model, service_class), job_ids in kinds.items():
        rows = await connection.execute(_places(model, service_class, job_ids, limit))
        found |= {row.job_id: Ahead(row.place - 1, int(row.tokens) - row.cost) for row in rows}
    return found


def _places(model: str, service_class: str, job_ids: Sequence[str], limit: int) -> Select[Any]:
    order = (_outbox.c.created_at, _outbox.c.job_id)
    first = (
        select(_outbox.c.job_id, _outbox.c.cost, _outbox.c.created_at)
        .where(
            _outbox.c.model == model,
            _outbox.c.service_class == service_class,
            _outbox.c.state != "scheduled",
        )
        .order_by(*order)
        .limit(limit + 1)
        .subquery()
    )
    came = (first.c.created_at, first.c.job_id)
    placed = select(
        first.c.job_id,
        first.c.cost,
        func.row_number().over(order_by=came).label("place"),
        func.sum(first.c.cost).over(order_by=came).label("tokens"),
    ).subquery()
    return select(placed).where(Among(placed.c.job_id, job_ids))
