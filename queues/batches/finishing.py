"""The end of a batch: its files in the order of its input, and one commit that shows them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import orjson

from core import metrics
from core.errors import NotFound
from core.ids import new_id
from core.logs import get_logger
from core.settings import Settings
from models.dialect import Database, Now
from models.repositories import batch_lines, batches, files
from models.repositories.batch_lines import Line
from models.repositories.batches import BatchRow
from models.repositories.files import OUTPUT, PROCESSED, UPLOADING, FileRow
from queues.batches.checking import numbered_lines
from queues.batches.ending import tell_end
from queues.batches.hold import Hold
from queues.batches.output import (
    EXPIRED,
    add_usage,
    error_line,
    lost_line,
    output_line,
    reason,
    usage_document,
)
from queues.batches.spool import work_folder
from queues.batches.steps import final_status
from queues.storage import Storage

logger = get_logger(__name__)

_PAGE: Final = 500
_LONGEST_WRITE: Final = timedelta(days=1)


@dataclass(slots=True)
class Sums:
    """What is counted while the files are written."""

    completed: int = 0
    expired: int = 0
    usage: Counter[str] = field(default_factory=Counter)


async def lines(database: Database, batch_id: str, *, completed: bool) -> AsyncIterator[list[Line]]:
    """Pages in the order of the file; each is a look of its own."""
    after = -1
    while True:
        async with database.read() as connection:
            page = await batch_lines.page(connection, batch_id, after=after, limit=_PAGE, completed=completed)
        if page:
            yield page
            after = page[-1].number
        if len(page) < _PAGE:
            return


class Finish:
    """Safe to begin again: what a dead process wrote belongs to rows that expire."""

    def __init__(self, database: Database, storage: Storage, settings: Settings) -> None:
        self._database = database
        self._storage = storage
        self._settings = settings

    async def finish(self, hold: Hold) -> None:
        """Raises `BatchTaken`."""
        if hold.status == "in_progress":
            async with self._database.begin() as connection:
                await hold.move(connection, status="finalizing", finalizing_at=Now())
        sums, batch = Sums(), hold.batch
        output = await self._write(batch, "output", self._completed(batch, sums))
        errors = await self._write(batch, "error", self._others(batch, sums))
        status = final_status(batch, expired=sums.expired)
        values = {
            "completed": sums.completed,
            "output_file_id": output.id if output else None,
            "error_file_id": errors.id if errors else None,
        }
        async with self._database.begin() as connection:
            await batches.add_up(connection, [batch.id])
            await hold.move(
                connection,
                status=status,
                finished_at=Now(),
                failed=batch.total - sums.completed,
                usage=usage_document(sums.usage),
                **values,
            )
            for row in filter(None, (output, errors)):
                await files.complete(connection, row)
            await tell_end(connection, batch, status, keep=self._settings.upkeep.retention, **values)
        metrics.BATCHES.labels(status).inc()
        logger.info("batch_finished", batch_id=batch.id, status=status, completed=sums.completed)

    async def _completed(self, batch: BatchRow, sums: Sums) -> AsyncIterator[bytes]:
        async for page in lines(self._database, batch.id, completed=True):
            for line in page:
                add_usage(sums.usage, line.usage)
            sums.completed += len(page)
            yield b"".join(output_line(line, batch.endpoint) for line in page)

    async def _others(self, batch: BatchRow, sums: Sums) -> AsyncIterator[bytes]:
        is_cancelled = batch.cancelling_at is not None
        lost = await self._lost(batch)
        sums.expired += 0 if is_cancelled else len(lost)
        at = 0
        async for page in lines(self._database, batch.id, completed=False):
            pieces = []
            for line in page:
                while at < len(lost) and lost[at][0] < line.number:
                    pieces.append(lost_line(*lost[at], is_cancelled=is_cancelled))
                    at += 1
                pieces.append(error_line(line, expires_at=batch.expires_at, is_cancelled=is_cancelled))
                why = reason(line, batch.expires_at, is_cancelled=is_cancelled)
                sums.expired += why["code"] == EXPIRED["code"]
            yield b"".join(pieces)
        if rest := lost[at:]:
            yield b"".join(lost_line(*one, is_cancelled=is_cancelled) for one in rest)

    async def _lost(self, batch: BatchRow) -> list[tuple[int, str]]:
        """Lines that never became jobs, for the batch was ended while they were loaded: number, custom_id."""
        if batch.loaded >= batch.total:
            return []
        async with self._database.read() as connection:
            known = await batch_lines.numbers(connection, batch.id)
        with work_folder() as folder:
            path = Path(folder, "input.jsonl")
            try:
                wanted = await self._wanted(batch)
                await self._storage.save(batch.input_file_id, path)
            except NotFound:
                return []
            longest = self._settings.batches.longest_line
            found = await asyncio.to_thread(_missing, path, known, longest)
        return [one for one in found if wanted(one[1])]

    async def _wanted(self, batch: BatchRow) -> Callable[[str], bool]:
        """A batch that repeats another has only the lines of that one's error file."""
        if batch.retry_of is None:
            return lambda _: True
        async with self._database.read() as connection:
            earlier = await batches.read(connection, batch.tenant_id, batch.retry_of)
        if earlier is None or earlier.error_file_id is None:
            return lambda _: True
        content = b"".join([piece async for piece in await self._storage.read(earlier.error_file_id)])
        failed = {orjson.loads(raw)["custom_id"] for raw in content.splitlines()}
        return failed.__contains__

    async def _write(self, batch: BatchRow, kind: str, pieces: AsyncIterator[bytes]) -> FileRow | None:
        """The file as it will be once the batch has ended; None where nothing is to be in it."""
        first = await anext(pieces, None)
        if first is None:
            return None
        now = datetime.now(UTC)
        row = FileRow(
            id=new_id("file"),
            tenant_id=batch.tenant_id,
            purpose=OUTPUT,
            filename=f"{batch.id}_{kind}.jsonl",
            status=UPLOADING,
            bytes=0,
            created_at=now,
            expires_at=now + _LONGEST_WRITE,
            batch_id=batch.id,
        )
        async with self._database.begin() as connection:
            await files.add(connection, row)
        size = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal size
            size += len(first)
            yield first
            async for piece in pieces:
                size += len(piece)
                yield piece

        await self._storage.write(row.id, counted())
        ttl = self._settings.batches.output_ttl
        if batch.output_ttl is not None:
            ttl = timedelta(seconds=batch.output_ttl)
        return replace(row, status=PROCESSED, bytes=size, expires_at=now + ttl)


def _missing(path: Path, known: set[int], longest: int) -> list[tuple[int, str]]:
    with path.open("rb") as file:
        return [
            (number, orjson.loads(raw)["custom_id"])
            for number, raw in numbered_lines(file, longest)
            if number not in known
        ]
