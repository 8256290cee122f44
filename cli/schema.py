"""Brings a database to the schema of this version; works from a checkout and from an installed wheel."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from core.errors import ConfigurationMistake, StoreUnavailable
from core.settings import DatabaseSettings
from models.dialect import open_database
from models.repositories.migration_lock import lock_migrations
from models.repositories.schema import applied_revision, is_behind, known_revisions

# A migration may rewrite a table, or wait for another process that does.
_PATIENCE: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Step:
    """From where to where; `is_needed` where the database was behind."""

    current: str | None
    target: str
    outcome: str = ""
    is_needed: bool = False


def upgrade(settings: DatabaseSettings, *, check: bool = False) -> Step:
    """Applies what is missing; with `check` only looks. Raises `StoreUnavailable`."""
    refuse_missing_folder(settings)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # the caller says what was done
    patient = settings.model_copy(update={"command_timeout": _PATIENCE})
    with plain_refusals():
        return asyncio.run(_upgrade(patient, check=check))


async def _upgrade(settings: DatabaseSettings, *, check: bool) -> Step:
    database = open_database(settings)
    known = known_revisions()
    target = known[-1]
    try:
        async with database.read() as connection:
            if not check:
                await lock_migrations(connection)
            current = await applied_revision(connection)
            # SQLite: the migration opens the file itself, and this look must not hold it.
            await connection.rollback()
            if not is_behind(current, known):
                newer = "" if current == target else ", which is older"
                return Step(current, target, f"{newer}; nothing to do")
            if check:
                return Step(current, target, is_needed=True)
            # Alembic's environment starts a loop of its own, so it needs a thread of its own.
            await asyncio.to_thread(command.upgrade, _alembic(settings), "head")
            return Step(current, target, "; migrated", is_needed=True)
    finally:
        await database.close()


@contextmanager
def plain_refusals() -> Iterator[None]:
    """A wrong password or a database that nobody created, in the server's own words."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error, IntegrityError):
            raise
        raise StoreUnavailable(f"the database refused: {str(error.orig).splitlines()[0]}") from error


def refuse_missing_folder(settings: DatabaseSettings) -> None:
    """SQLite makes a file and no folder, and its driver's thread complains long after the fact."""
    url = make_url(settings.url)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).parent.is_dir():
        raise ConfigurationMistake(
            f"the folder of {url.database} does not exist. Create it, or correct PENSTOCK_DATABASE__URL."
        )


async def refuse_old_schema(connection: AsyncConnection) -> None:
    """One clear line in place of a missing table."""
    current, known = await applied_revision(connection), known_revisions()
    if is_behind(current, known):
        raise ConfigurationMistake(
            f"the database is at {current or 'no migration'}, this version needs {known[-1]}. "
            "Run `penstock migrate`."
        )


def _alembic(settings: DatabaseSettings) -> Config:
    config = Config()
    config.set_main_option("script_location", str(files("migrations")).replace("%", "%%"))
    config.attributes["database"] = settings
    return config
