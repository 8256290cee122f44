"""Template answers that operators set while the platform runs."""

from typing import Any, Final

from sqlalchemy import Table, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Database, Now
from models.template_table import TemplateRow

_templates: Final[Table] = TemplateRow.__table__  # type: ignore[assignment]


async def all_of_them(connection: AsyncConnection) -> dict[str, dict[str, Any]]:
    """By name."""
    rows = await connection.execute(select(_templates.c.name, _templates.c.intent))
    return {row.name: row.intent for row in rows}


async def put(
    database: Database, connection: AsyncConnection, name: str, intent: dict[str, Any], *, actor: str
) -> None:
    statement = database.insert(_templates).values(name=name, intent=intent, actor=actor, changed_at=Now())
    new = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name"],
            set_={"intent": new.intent, "actor": new.actor, "changed_at": new.changed_at},
        )
    )


async def remove(connection: AsyncConnection, name: str) -> bool:
    """False where there was none."""
    return bool((await connection.execute(delete(_templates).where(_templates.c.name == name))).rowcount)
