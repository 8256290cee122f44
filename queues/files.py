"""A tenant's files: received, listed, read and deleted, within what it may keep."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from core.batch_settings import StorageSettings
from core.errors import Conflict, NotFound, StorageFull
from core.ids import new_id
from models.dialect import Database
from models.repositories import batches, files
from models.repositories.files import INPUT, PROCESSED, UPLOADING, FileRow
from queues.storage import Storage

_LONGEST_UPLOAD: Final = timedelta(days=1)
_CHUNK: Final = 100


@dataclass(frozen=True, slots=True)
class Described:
    """What an upload says of itself."""

    filename: str
    purpose: str
    lifetime: timedelta | None = None


class Incoming(Protocol):
    """A file on its way; what is said of it may come after its bytes."""

    def pieces(self) -> AsyncIterator[bytes]: ...
    def described(self) -> Described: ...


class Files:
    """Every method but `forget` is for one tenant; what is another's is `NotFound`."""

    def __init__(self, database: Database, storage: Storage, settings: StorageSettings) -> None:
        self._database = database
        self._storage = storage
        self._settings = settings

    async def receive(
        self, tenant_id: str, incoming: Incoming, *, announced: int | None, now: datetime
    ) -> FileRow:
        """Raises `StorageFull`, what `incoming` raises, and `Unavailable`; then nothing of it is kept."""
        reserved = min(announced or self._settings.largest_file, self._settings.largest_file)
        row = FileRow(
            new_id("file"), tenant_id, INPUT, "", UPLOADING, reserved, now, expires_at=now + _LONGEST_UPLOAD
        )
        await self._reserve(row)
        counted = _Counted(incoming.pieces())
        try:
            await self._storage.write(row.id, counted)
            said = incoming.described()
            row = replace(
                row,
                filename=said.filename,
                purpose=said.purpose,
                status=PROCESSED,
                bytes=counted.size,
                expires_at=now + said.lifetime if said.lifetime else None,
            )
            async with self._database.begin() as connection:
                await files.complete(connection, row)
        except BaseException:
            await asyncio.shield(self._discard(row.id))
            raise
        return row

    async def _reserve(self, row: FileRow) -> None:
        most = self._settings.per_tenant
        async with self._database.begin() as connection:
            used = await files.used(connection, row.tenant_id) if most else 0
            if most and used + row.bytes > most:
                raise StorageFull(
                    f"The files of this tenant take {used} of {most} bytes, and this one would take up to"
                    f" {row.bytes}: delete some with DELETE /v1/files/{{id}}."
                )
            await files.add(connection, row)

    async def _discard(self, file_id: str) -> None:
        await self._storage.remove(file_id)
        async with self._database.begin() as connection:
            await files.remove(connection, [file_id])

    async def read(self, tenant_id: str, file_id: str) -> FileRow:
        async with self._database.read() as connection:
            row = await files.read(connection, tenant_id, file_id)
        if row is None:
            raise NotFound("There is no such file.")
        return row

    async def content(self, tenant_id: str, file_id: str) -> tuple[FileRow, AsyncIterator[bytes]]:
        row = await self.read(tenant_id, file_id)
        return row, await self._storage.read(file_id)

    async def page(
        self, tenant_id: str, *, purpose: str | None, after: str | None, ascending: bool, limit: int
    ) -> tuple[list[FileRow], bool]:
        async with self._database.read() as connection:
            return await files.page(
                connection, tenant_id, purpose=purpose, after=after, ascending=ascending, limit=limit
            )

    async def delete(self, tenant_id: str, file_id: str) -> None:
        """Raises `Conflict` while a batch has yet to read it."""
        await self.read(tenant_id, file_id)
        async with self._database.read() as connection:
            reader = await batches.reads_file(connection, tenant_id, file_id)
        if reader is not None:
            raise Conflict(f"{reader} has yet to read this file: wait, or cancel it.")
        await self._discard(file_id)

    async def forget(self) -> int:
        """Deletes files whose time is over, of any tenant; the number of them."""
        gone = 0
        while True:
            async with self._database.read() as connection:
                over = await files.overdue(connection, limit=_CHUNK)
            for file_id in over:
                await self._discard(file_id)
            gone += len(over)
            if len(over) < _CHUNK:
                return gone


class _Counted:
    def __init__(self, pieces: AsyncIterator[bytes]) -> None:
        self._pieces = pieces
        self.size = 0

    def __aiter__(self) -> "_Counted":
        return self

    async def __anext__(self) -> bytes:
        piece = await anext(self._pieces)
        self.size += len(piece)
        return piece
