"""Which migration the database is at."""

from collections.abc import Sequence
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


def known_revisions() -> tuple[str, ...]:
    """The migrations that this code knows, the newest last. Reads files."""
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    return tuple(script.revision for script in scripts.walk_revisions())[::-1]


def latest_revision() -> str:
    return known_revisions()[-1]


def is_behind(applied: str | None, known: Sequence[str]) -> bool:
    """What this code does not know is newer, and no reason to refuse.

    A rollout changes the schema first; what it adds must serve the version before it, too, which runs on
    meanwhile, or again after a rollback.
    """
    return applied is None or applied in known[:-1]
