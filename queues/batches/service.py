"""A tenant's batches: made, read, cancelled, repeated, and looked into while they run."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from core.errors import Conflict, IdempotencyMismatch, InvalidField, NotFinished, NotFound
from core.ids import new_id
from models.dialect import Database
from models.repositories import batches, files, submission
from models.repositories.batches import BatchRow
from models.repositories.submission import Reception
from queues.batches.finishing import lines
from queues.batches.output import output_line
from queues.prompts import fingerprint
from queues.requests.batch_request import BatchCreate, window_of
from queues.storage import Storage

_REUSED: Final = "This Idempotency-Key was used with another body; use a new key."


@dataclass(frozen=True, slots=True)
class NewBatch:
    """Whom a batch is for, beside what it asks: `service_class` is what its key may use at best."""

    tenant_id: str
    key_id: str
    service_class: str
    now: datetime
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class _Keyed:
    id: str
    tenant_id: str
    idempotency_key: str
    fingerprint: str
    created_at: datetime


class Batches:
    """Every method is for one tenant; what is another's is `NotFound`."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self._database = database
        self._storage = storage

    async def create(self, wanted: BatchCreate, new: NewBatch) -> tuple[BatchRow, bool]:
        """The batch, and whether it is new. Raises `InvalidField` and `IdempotencyMismatch`."""
        row = BatchRow(
            id=new_id("batch"),
            tenant_id=new.tenant_id,
            status="validating",
            endpoint=wanted.endpoint,
            input_file_id=wanted.input_file_id,
            service_class=new.service_class,
            window=wanted.completion_window,
            created_at=new.now,
            expires_at=new.now + window_of(wanted.completion_window),
            details=dict(wanted.metadata or {}),
            degradation=wanted.degradation.model_dump(exclude_none=True) if wanted.degradation else None,
            webhook=wanted.webhook.model_dump() if wanted.webhook else None,
            key_id=new.key_id,
            output_ttl=wanted.output_expires_after.seconds if wanted.output_expires_after else None,
        )
        return await self._add(row, new.idempotency_key, fingerprint(wanted.model_dump(mode="json")))

    async def retry_failed(
        self, batch_id: str, *, tenant_id: str, now: datetime, idempotency_key: str | None
    ) -> tuple[BatchRow, bool]:
        """A batch of the lines that did not complete in this one. Raises `Conflict`."""
        earlier = await self.read(tenant_id, batch_id)
        if not earlier.is_finished:
            raise NotFinished(f"The batch is {earlier.status}; wait until it has ended.")
        if earlier.error_file_id is None:
            said = "none of its lines ran" if earlier.status == "failed" else "all of its lines completed"
            raise Conflict(f"There is nothing to repeat: {said}.")
        row = BatchRow(
            id=new_id("batch"),
            tenant_id=tenant_id,
            status="validating",
            endpoint=earlier.endpoint,
            input_file_id=earlier.input_file_id,
            service_class=earlier.service_class,
            window=earlier.window,
            created_at=now,
            expires_at=now + window_of(earlier.window),
            retry_of=earlier.id,
            details=earlier.details,
            degradation=earlier.degradation,
            webhook=earlier.webhook,
            key_id=earlier.key_id,
            output_ttl=earlier.output_ttl,
        )
        return await self._add(row, idempotency_key, fingerprint({"retry_failed": batch_id}))

    async def _add(self, row: BatchRow, key: str | None, asked: str) -> tuple[BatchRow, bool]:
        async with self._database.begin() as connection:
            if key is not None:
                keyed = _Keyed(row.id, row.tenant_id, key, asked, row.created_at)
                known = await submission.reserve_keys(self._database, connection, [keyed])
                receipt = submission.receipt_of(keyed, known)
                if receipt.reception is Reception.MISMATCH:
                    raise IdempotencyMismatch(_REUSED)
                if receipt.reception is Reception.REPLAYED:
                    earlier = await batches.read(connection, row.tenant_id, receipt.job_id)
                    if earlier is None:
                        raise NotFound("The batch of this Idempotency-Key is gone.")
                    return earlier, False
            file = await files.read(connection, row.tenant_id, row.input_file_id)
            if file is None or file.purpose != files.INPUT:
                raise InvalidField("input_file_id", "There is no such file: upload it with purpose batch.")
            await batches.add(connection, row)
        return row, True

    async def read(self, tenant_id: str, batch_id: str) -> BatchRow:
        async with self._database.read() as connection:
            row = await batches.read(connection, tenant_id, batch_id)
        if row is None:
            raise NotFound("There is no such batch.")
        return row

    async def page(self, tenant_id: str, *, after: str | None, limit: int) -> tuple[list[BatchRow], bool]:
        async with self._database.read() as connection:
            return await batches.page(connection, tenant_id, after=after, limit=limit)

    async def cancel(self, tenant_id: str, batch_id: str) -> BatchRow:
        """Idempotent. Raises `Conflict` where it has ended otherwise, or all its lines have."""
        async with self._database.begin() as connection:
            await batches.ask_to_cancel(connection, tenant_id, batch_id)
        row = await self.read(tenant_id, batch_id)
        if row.status not in {"cancelling", "cancelled"}:
            raise Conflict(f"The batch is {row.status}: nothing of it can be cancelled any more.")
        return row

    async def output(self, tenant_id: str, batch_id: str, *, partial: bool) -> AsyncIterator[bytes]:
        """Lines that completed, in the order of the file. Raises `NotFinished` unless `partial`."""
        row = await self.read(tenant_id, batch_id)
        if row.is_finished:
            return await self._storage.read(row.output_file_id) if row.output_file_id else _nothing()
        if not partial:
            raise NotFinished(
                f"The batch is {row.status}: wait until it has ended, or ask with partial=true."
            )
        return self._so_far(row)

    async def _so_far(self, row: BatchRow) -> AsyncIterator[bytes]:
        async for page in lines(self._database, row.id, completed=True):
            yield b"".join(output_line(line, row.endpoint) for line in page)


async def _nothing() -> AsyncIterator[bytes]:
    yield b""
