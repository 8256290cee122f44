"""Tenants and their API keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Table, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from models.dialect import Database, Now, insert_in
from models.limits import NO_LIMITS, Bounds, Limits
from models.tables import ApiKey, OwnerLimits, Tenant

_tenants: Final[Table] = Tenant.__table__  # type: ignore[assignment]
_keys: Final[Table] = ApiKey.__table__  # type: ignore[assignment]
_limits: Final[Table] = OwnerLimits.__table__  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class TenantRow:
    id: str
    name: str
    created_at: datetime
    disabled_at: datetime | None = None
    private_prefixes: bool = False  # it shares nothing in an engine's prefix cache


@dataclass(frozen=True, slots=True)
class KeyRow:
    """An API key; `secret_hash` is keyed with the pepper, and nothing else of the secret is kept."""

    id: str
    tenant_id: str
    name: str
    secret_hash: str
    scopes: list[str]
    max_class: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None


async def add_tenant(connection: AsyncConnection, tenant: TenantRow) -> None:
    await connection.execute(insert(_tenants).values(**_columns(tenant)))


async def tenants(connection: AsyncConnection) -> list[TenantRow]:
    rows = await connection.execute(select(_tenants).order_by(_tenants.c.name))
    return [TenantRow(*row) for row in rows]


async def find_tenant(connection: AsyncConnection, name_or_id: str) -> TenantRow | None:
    statement = select(_tenants).where((_tenants.c.name == name_or_id) | (_tenants.c.id == name_or_id))
    row = (await connection.execute(statement)).one_or_none()
    return TenantRow(*row) if row else None


async def set_tenant_disabled(connection: AsyncConnection, tenant_id: str, *, disabled: bool) -> bool:
    changed = await connection.execute(
        update(_tenants).where(_tenants.c.id == tenant_id).values(disabled_at=Now() if disabled else None)
    )
    return bool(changed.rowcount)


async def private_prefixes(connection: AsyncConnection, tenant_id: str) -> bool | None:
    """None where there is no such tenant."""
    found = await connection.execute(select(_tenants.c.private_prefixes).where(_tenants.c.id == tenant_id))
    return found.scalar_one_or_none()


async def set_private_prefixes(connection: AsyncConnection, tenant_id: str, *, private: bool) -> bool:
    """Counts from the next claim on; False where there is no such tenant."""
    changed = await connection.execute(
        update(_tenants).where(_tenants.c.id == tenant_id).values(private_prefixes=private)
    )
    return bool(changed.rowcount)


async def add_key(connection: AsyncConnection, key: KeyRow) -> None:
    await connection.execute(insert(_keys).values(**_columns(key)))


async def put_key(database: Database, connection: AsyncConnection, key: KeyRow) -> None:
    """A key that may be there already, with another hash or another owner: the new word counts."""
    values = _columns(key)
    statement = database.insert(_keys).values(**values)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["id"], set_={name: value for name, value in values.items() if name != "id"}
        )
    )


async def keys(connection: AsyncConnection, tenant_id: str | None = None) -> list[KeyRow]:
    statement = select(_keys).order_by(_keys.c.created_at)
    if tenant_id is not None:
        statement = statement.where(_keys.c.tenant_id == tenant_id)
    return [KeyRow(*row) for row in await connection.execute(statement)]


async def find_key(connection: AsyncConnection, key_id: str) -> KeyRow | None:
    """The key, unless it was revoked, has expired, or its tenant is disabled."""
    statement = (
        select(_keys)
        .join(_tenants, _tenants.c.id == _keys.c.tenant_id)
        .where(
            _keys.c.id == key_id,
            _keys.c.revoked_at.is_(None),
            _keys.c.expires_at.is_(None) | (_keys.c.expires_at > Now()),
            _tenants.c.disabled_at.is_(None),
        )
    )
    row = (await connection.execute(statement)).one_or_none()
    return KeyRow(*row) if row else None


async def bounds(connection: AsyncConnection, *, tenant_id: str, key_id: str) -> Bounds:
    """What was set for a key and its tenant, without any defaults."""
    found = await limits(connection, [tenant_id, key_id])
    return Bounds(found.get(tenant_id, NO_LIMITS), found.get(key_id, NO_LIMITS))


async def owner_exists(connection: AsyncConnection, owner: str) -> bool:
    """A tenant, or a key."""
    tenant = select(_tenants.c.id).where(_tenants.c.id == owner)
    found = await connection.execute(tenant.union_all(select(_keys.c.id).where(_keys.c.id == owner)))
    return found.first() is not None


async def limits(connection: AsyncConnection, owners: Sequence[str] | None = None) -> dict[str, Limits]:
    """By owner; those without any are missing. None asks for all."""
    statement = select(_limits.c.owner, _limits.c.limits)
    if owners is not None:
        statement = statement.where(_limits.c.owner.in_(owners))
    return {row.owner: Limits.from_document(row.limits) for row in await connection.execute(statement)}


async def set_limits(connection: AsyncConnection, owner: str, wanted: Limits) -> None:
    statement = insert_in(connection.dialect.name, _limits).values(
        owner=owner, limits=wanted.document(), changed_at=Now()
    )
    new = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["owner"], set_={"limits": new.limits, "changed_at": new.changed_at}
        )
    )


async def revoke_key(connection: AsyncConnection, key_id: str) -> bool:
    changed = await connection.execute(
        update(_keys).where(_keys.c.id == key_id, _keys.c.revoked_at.is_(None)).values(revoked_at=Now())
    )
    return bool(changed.rowcount)


async def expire_key(connection: AsyncConnection, key_id: str, at: datetime) -> bool:
    """Rotation: the old key stays good until `at`, beside the new one."""
    changed = await connection.execute(update(_keys).where(_keys.c.id == key_id).values(expires_at=at))
    return bool(changed.rowcount)


def _columns(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}
