"""Rows of files; what they name lies in the storage."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Table, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from models.batch_tables import File
from models.dialect import Now

_files: Final[Table] = File.__table__  # type: ignore[assignment]

UPLOADING: Final = "uploading"
PROCESSED: Final = "processed"
INPUT: Final = "batch"
OUTPUT: Final = "batch_output"


@dataclass(frozen=True, slots=True)
class FileRow:
    id: str
    tenant_id: str
    purpose: str
    filename: str
    status: str
    bytes: int
    created_at: datetime
    expires_at: datetime | None = None
    batch_id: str | None = None

    @property
    def values(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in self.__slots__}


_COLUMNS: Final = [_files.c[name] for name in FileRow.__slots__]


async def add(connection: AsyncConnection, row: FileRow) -> None:
    await connection.execute(insert(_files).values(**row.values))


async def used(connection: AsyncConnection, tenant_id: str) -> int:
    """Bytes that the tenant's files take, those on their way included."""
    total = select(func.coalesce(func.sum(_files.c.bytes), 0)).where(_files.c.tenant_id == tenant_id)
    return int((await connection.execute(total)).scalar_one())


async def complete(connection: AsyncConnection, row: FileRow) -> bool:
    """The file is there; False where its row is gone."""
    changed = await connection.execute(update(_files).where(_files.c.id == row.id).values(**row.values))
    return bool(changed.rowcount)


async def read(connection: AsyncConnection, tenant_id: str, file_id: str) -> FileRow | None:
    """None also for one that is still on its way."""
    found = await connection.execute(
        select(*_COLUMNS).where(
            _files.c.id == file_id, _files.c.tenant_id == tenant_id, _files.c.status == PROCESSED
        )
    )
    row = found.one_or_none()
    return FileRow(*row) if row is not None else None


async def page(
    connection: AsyncConnection,
    tenant_id: str,
    *,
    purpose: str | None,
    after: str | None,
    ascending: bool,
    limit: int,
) -> tuple[list[FileRow], bool]:
    """In the order of their creation, and whether there are more."""
    statement = select(*_COLUMNS).where(_files.c.tenant_id == tenant_id, _files.c.status == PROCESSED)
    if purpose is not None:
        statement = statement.where(_files.c.purpose == purpose)
    if after is not None:
        statement = statement.where(_files.c.id > after if ascending else _files.c.id < after)
    order = _files.c.id.asc() if ascending else _files.c.id.desc()
    rows = (await connection.execute(statement.order_by(order).limit(limit + 1))).all()
    return [FileRow(*row) for row in rows[:limit]], len(rows) > limit


async def remove(connection: AsyncConnection, file_ids: Sequence[str]) -> None:
    """After what they name is gone."""
    await connection.execute(delete(_files).where(_files.c.id.in_(file_ids)))


async def overdue(connection: AsyncConnection, *, limit: int) -> list[str]:
    """Files whose time is over, and uploads that never ended."""
    rows = await connection.execute(
        select(_files.c.id).where(_files.c.expires_at <= Now()).order_by(_files.c.expires_at).limit(limit)
    )
    return list(rows.scalars())
