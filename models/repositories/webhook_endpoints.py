"""A tenant's endpoints and signing secrets: every statement is scoped to a tenant."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Select, Table, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Database, Now
from models.repositories.webhook_deliveries import cancel_pending
from models.webhook_secrets import SecretRow
from models.webhook_tables import WebhookEndpoint, WebhookReceiver, WebhookSecret

_endpoints: Final[Table] = WebhookEndpoint.__table__  # type: ignore[assignment]
_receivers: Final[Table] = WebhookReceiver.__table__  # type: ignore[assignment]
_secrets: Final[Table] = WebhookSecret.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class EndpointRow:
    id: str
    tenant_id: str
    url: str
    events: list[str]
    description: str
    created_at: datetime
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    failures: int = 0
    open_until: datetime | None = None


_OWN: Final = [_endpoints.c[name] for name in EndpointRow.__slots__[:8]]


async def add(connection: AsyncConnection, endpoint: EndpointRow, secret: SecretRow) -> None:
    values = {column.name: getattr(endpoint, column.name) for column in _OWN}
    await connection.execute(insert(_endpoints).values(**values))
    await connection.execute(insert(_secrets).values(**_columns(secret)))


async def count(connection: AsyncConnection, tenant_id: str) -> int:
    statement = select(func.count()).select_from(_endpoints).where(_endpoints.c.tenant_id == tenant_id)
    return (await connection.execute(statement)).scalar_one()


async def all_of(connection: AsyncConnection, tenant_id: str) -> list[EndpointRow]:
    """Newest first."""
    return await _find(connection, _endpoints.c.tenant_id == tenant_id)


async def read(connection: AsyncConnection, tenant_id: str, endpoint_id: str) -> EndpointRow | None:
    found = await _find(connection, (_endpoints.c.tenant_id == tenant_id) & (_endpoints.c.id == endpoint_id))
    return found[0] if found else None


async def _find(connection: AsyncConnection, which: Any) -> list[EndpointRow]:
    joined = _endpoints.outerjoin(_receivers, _receivers.c.lane == _endpoints.c.id)
    failures = func.coalesce(_receivers.c.failures, 0)
    statement: Select[Any] = (
        select(*_OWN, failures, _receivers.c.open_until)
        .select_from(joined)
        .where(which)
        .order_by(_endpoints.c.id.desc())
    )
    rows = await connection.execute(statement)
    return [EndpointRow(*row) for row in rows.all()]


async def change(
    connection: AsyncConnection, endpoint_id: str, values: Mapping[str, Any], *, enabled: bool | None
) -> None:
    """The caller has checked whose it is. Enabling forgets the failures; disabling cancels what waits."""
    changes = dict(values)
    if enabled is True:
        changes |= {"disabled_at": None, "disabled_reason": None}
        await connection.execute(delete(_receivers).where(_receivers.c.lane == endpoint_id))
    elif enabled is False:
        changes |= {"disabled_at": Now(), "disabled_reason": "owner"}
        await cancel_pending(connection, endpoint_id, "the endpoint is disabled")
    if changes:
        await connection.execute(update(_endpoints).where(_endpoints.c.id == endpoint_id).values(**changes))


async def remove(connection: AsyncConnection, endpoint_id: str) -> None:
    """The caller has checked whose it is. Its deliveries stay in the log."""
    await connection.execute(delete(_endpoints).where(_endpoints.c.id == endpoint_id))
    await connection.execute(delete(_secrets).where(_secrets.c.owner == endpoint_id))
    await connection.execute(delete(_receivers).where(_receivers.c.lane == endpoint_id))
    await cancel_pending(connection, endpoint_id, "the endpoint was deleted")


async def keep_secret(database: Database, connection: AsyncConnection, secret: SecretRow) -> None:
    """The owner's first secret; changes nothing where there is one."""
    statement = database.insert(_secrets).values(**_columns(secret))
    await connection.execute(statement.on_conflict_do_nothing(index_elements=["owner"]))


async def rotate_secret(
    database: Database, connection: AsyncConnection, secret: SecretRow, *, overlap: timedelta
) -> datetime | None:
    """The new secret signs at once; the answer is until when the old one, if there is one, signs too."""
    statement = database.insert(_secrets).values(**_columns(secret))
    until = await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["owner"],
            set_={
                "current": statement.excluded.current,
                "previous": _secrets.c.current,
                "previous_until": Now(overlap),
            },
        ).returning(_secrets.c.previous_until)
    )
    ends: datetime | None = until.scalar_one()
    return ends


def _columns(row: SecretRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in SecretRow.__slots__}
