"""Which migration the database is at."""

from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

import migrations


async def applied_revision(connection: AsyncConnection) -> str | None:
    """None where the database was never migrated."""
    try:
        found = await connection.execute(text("SELECT version_num FROM alembic_version"))
    except DBAPIError:
        return None
    revision: str | None = found.scalar_one_or_none()
    return revision


def latest_revision() -> str | None:
    """The newest migration that this code knows. Reads files."""
    return ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head()
