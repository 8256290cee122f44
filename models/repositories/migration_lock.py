"""One process migrates at a time."""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

# Any number that no other application takes on this database.
_LOCK: Final = 7_273_652_011


async def lock_migrations(connection: AsyncConnection) -> None:
    """Waits for the others; held until the connection closes. SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
