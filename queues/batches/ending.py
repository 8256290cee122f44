"""Who is told that a batch has ended, in the transaction that ends it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from models.repositories import webhook_events
from models.repositories.batches import BatchRow


async def tell_end(
    connection: AsyncConnection, batch: BatchRow, status: str, *, keep: timedelta, **values: Any
) -> None:
    """`values` are what the end changes beside the status."""
    total, completed = batch.total, values.get("completed", batch.completed)
    data = {
        "id": batch.id,
        "status": status,
        "request_counts": {"total": total, "completed": completed, "failed": total - completed},
        "output_file_id": values.get("output_file_id"),
        "error_file_id": values.get("error_file_id"),
        "metadata": batch.details,
    }
    await webhook_events.tell_batch(
        connection,
        batch.tenant_id,
        f"batch.{status}",
        data,
        webhook=batch.webhook,
        at=datetime.now(UTC),
        keep=keep,
    )
