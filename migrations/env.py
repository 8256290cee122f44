"""Runs the migrations on the database that the settings name, PostgreSQL or SQLite."""

import asyncio

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from core.settings import DatabaseSettings, load_settings

# So that their tables are known.
from models import batch_tables, shift_table, template_table, webhook_tables  # noqa: F401
from models.dialect import UtcDateTime, open_database
from models.tables import Base


def _render(kind: str, item: object, context: AutogenContext) -> str | bool:
    """Our own column types by name, so that a migration reads like the tables."""
    if kind != "type" or not isinstance(item, UtcDateTime):
        return False
    context.imports.add("from models.dialect import UtcDateTime")
    return "UtcDateTime()"


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        render_item=_render,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def _migrate(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.run_sync(_run)
        await connection.commit()
    await engine.dispose()


def _settings() -> DatabaseSettings:
    given: DatabaseSettings | None = context.config.attributes.get("database")
    return given or load_settings().database


if context.is_offline_mode():
    context.configure(url=_settings().url, target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(_migrate(open_database(_settings()).engine))
