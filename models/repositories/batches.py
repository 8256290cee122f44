"""Batches: their rows, who works on each, and how far each is."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Table, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from models.batch_tables import Batch, BatchTally, File
from models.dialect import Now, ring_after_commit

_batches: Final[Table] = Batch.__table__  # type: ignore[assignment]
_tallies: Final[Table] = BatchTally.__table__  # type: ignore[assignment]
_files: Final[Table] = File.__table__  # type: ignore[assignment]

BELL: Final = "batches"  # rung after the commit that left work on a batch
_CANCELLABLE: Final = ("validating", "in_progress")


@dataclass(frozen=True, slots=True)
class BatchRow:
    """`completed` and `failed` are those of the row; `Counts` are up to date."""

    id: str
    tenant_id: str
    status: str
    endpoint: str
    input_file_id: str
    service_class: str
    window: str
    created_at: datetime
    expires_at: datetime
    output_file_id: str | None = None
    error_file_id: str | None = None
    retry_of: str | None = None
    models: list[str] = field(default_factory=list)
    total: int = 0
    completed: int = 0
    failed: int = 0
    loaded: int = 0
    problems: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, Any] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    degradation: dict[str, Any] | None = None
    webhook: dict[str, Any] | None = None
    in_progress_at: datetime | None = None
    finalizing_at: datetime | None = None
    cancelling_at: datetime | None = None
    finished_at: datetime | None = None
    fence: int = 0
    leased_until: datetime | None = None
    key_id: str | None = None
    output_ttl: int | None = None

    @property
    def is_finished(self) -> bool:
        return self.finished_at is not None

    @property
    def ended(self) -> int:
        return self.completed + self.failed


_NAMES: Final = {"window": "completion_window", "details": "metadata"}
_COLUMNS: Final = [_batches.c[_NAMES.get(f.name, f.name)].label(f.name) for f in fields(BatchRow)]


def _values(row: BatchRow) -> dict[str, Any]:
    return {_NAMES.get(name, name): getattr(row, name) for name in row.__slots__}


async def add(connection: AsyncConnection, row: BatchRow) -> None:
    await connection.execute(insert(_batches).values(**_values(row)))
    ring_after_commit(connection, BELL)


async def read(connection: AsyncConnection, tenant_id: str, batch_id: str) -> BatchRow | None:
    found = await connection.execute(
        select(*_COLUMNS).where(_batches.c.id == batch_id, _batches.c.tenant_id == tenant_id)
    )
    row = found.one_or_none()
    return (await _counted(connection, [BatchRow(*row)]))[0] if row is not None else None


async def page(
    connection: AsyncConnection, tenant_id: str, *, after: str | None, limit: int
) -> tuple[list[BatchRow], bool]:
    """Newest first, and whether there are more."""
    statement = select(*_COLUMNS).where(_batches.c.tenant_id == tenant_id)
    if after is not None:
        statement = statement.where(_batches.c.id < after)
    rows = (await connection.execute(statement.order_by(_batches.c.id.desc()).limit(limit + 1))).all()
    return await _counted(connection, [BatchRow(*row) for row in rows[:limit]]), len(rows) > limit


async def unfinished(connection: AsyncConnection) -> list[BatchRow]:
    """Of all tenants, oldest first."""
    rows = await connection.execute(
        select(*_COLUMNS).where(_batches.c.finished_at.is_(None)).order_by(_batches.c.id)
    )
    return await _counted(connection, [BatchRow(*row) for row in rows])


async def _counted(connection: AsyncConnection, rows: list[BatchRow]) -> list[BatchRow]:
    """With the tallies that were not added up yet."""
    running = [row.id for row in rows if not row.is_finished]
    if not running:
        return rows
    sums = await connection.execute(
        select(_tallies.c.batch_id, func.sum(_tallies.c.completed), func.sum(_tallies.c.failed))
        .where(_tallies.c.batch_id.in_(running))
        .group_by(_tallies.c.batch_id)
    )
    more = {batch_id: (int(completed), int(failed)) for batch_id, completed, failed in sums}
    return [_plus(row, *more.get(row.id, (0, 0))) for row in rows]


def _plus(row: BatchRow, completed: int, failed: int) -> BatchRow:
    values = {f.name: getattr(row, f.name) for f in fields(row)}
    return BatchRow(**values | {"completed": row.completed + completed, "failed": row.failed + failed})


async def open_lines(connection: AsyncConnection, tenant_id: str) -> int:
    """Lines of the tenant's unfinished batches."""
    total = select(func.coalesce(func.sum(_batches.c.total), 0)).where(
        _batches.c.tenant_id == tenant_id, _batches.c.finished_at.is_(None)
    )
    return int((await connection.execute(total)).scalar_one())


async def reads_file(connection: AsyncConnection, tenant_id: str, file_id: str) -> str | None:
    """An unfinished batch that still needs this input."""
    statement = select(_batches.c.id).where(
        _batches.c.tenant_id == tenant_id,
        _batches.c.input_file_id == file_id,
        _batches.c.finished_at.is_(None),
        or_(_batches.c.status == "validating", _batches.c.loaded < _batches.c.total),
    )
    return (await connection.execute(statement.limit(1))).scalar_one_or_none()


async def ask_to_cancel(connection: AsyncConnection, tenant_id: str, batch_id: str) -> bool:
    """False where nothing of it can be cancelled any more."""
    changed = await connection.execute(
        update(_batches)
        .where(
            _batches.c.id == batch_id,
            _batches.c.tenant_id == tenant_id,
            _batches.c.status.in_(_CANCELLABLE),
        )
        .values(status="cancelling", cancelling_at=Now())
    )
    ring_after_commit(connection, BELL)
    return bool(changed.rowcount)


async def take(connection: AsyncConnection, batch_id: str, *, status: str, lease: timedelta) -> int | None:
    """A new fence for who works on the batch from now on; None where another one does."""
    taken = await connection.execute(
        update(_batches)
        .where(
            _batches.c.id == batch_id,
            _batches.c.status == status,
            _batches.c.finished_at.is_(None),
            or_(_batches.c.leased_until.is_(None), _batches.c.leased_until <= Now()),
        )
        .values(fence=_batches.c.fence + 1, leased_until=Now(lease))
        .returning(_batches.c.fence)
    )
    fence: int | None = taken.scalar_one_or_none()
    return fence


async def move(
    connection: AsyncConnection, batch_id: str, *, fence: int, status: str, values: dict[str, Any]
) -> bool:
    """Changes the batch as the holder of its fence, while it is in `status`; False where that is over."""
    named = {_NAMES.get(name, name): value for name, value in values.items()}
    changed = await connection.execute(
        update(_batches)
        .where(_batches.c.id == batch_id, _batches.c.fence == fence, _batches.c.status == status)
        .values(**named)
    )
    return bool(changed.rowcount)


async def renew(
    connection: AsyncConnection, batch_id: str, *, fence: int, status: str, lease: timedelta
) -> bool:
    """False where the batch has another holder by now, or another status."""
    return await move(connection, batch_id, fence=fence, status=status, values={"leased_until": Now(lease)})


async def let_go(connection: AsyncConnection, batch_id: str, *, fence: int) -> None:
    """The work is done or given up: whoever looks next may take it."""
    await connection.execute(
        update(_batches).where(_batches.c.id == batch_id, _batches.c.fence == fence).values(leased_until=None)
    )


async def add_up(connection: AsyncConnection, batch_ids: Sequence[str]) -> None:
    """Moves what was tallied into the rows of these batches."""
    for batch_id in batch_ids:
        gone = await connection.execute(
            delete(_tallies)
            .where(_tallies.c.batch_id == batch_id)
            .returning(_tallies.c.completed, _tallies.c.failed)
        )
        rows = gone.all()
        if rows:
            await connection.execute(
                update(_batches)
                .where(_batches.c.id == batch_id)
                .values(
                    completed=_batches.c.completed + sum(row.completed for row in rows),
                    failed=_batches.c.failed + sum(row.failed for row in rows),
                )
            )


async def forget(connection: AsyncConnection, *, keep: timedelta, limit: int) -> int:
    """Deletes batches that ended longer ago than `keep`; the number of them.

    One whose output is still there stays as long, and one that is repeated until that has ended.
    """
    again = _batches.alias("again")
    over = (
        select(_batches.c.id)
        .where(
            _batches.c.finished_at <= Now(-keep),
            ~exists().where(_files.c.id.in_([_batches.c.output_file_id, _batches.c.error_file_id])),
            ~exists().where(again.c.retry_of == _batches.c.id, again.c.finished_at.is_(None)),
        )
        .limit(limit)
    )
    gone = await connection.execute(delete(_batches).where(_batches.c.id.in_(over)))
    return gone.rowcount
