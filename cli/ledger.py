"""What the commands about tenants and keys do in the database."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from cli.schema import plain_refusals, refuse_missing_folder, refuse_old_schema
from core.clock import SystemClock
from core.errors import Conflict, InvalidField, NotFound
from core.ids import new_id
from core.settings import Settings, load_settings, parse_duration
from models.dialect import open_database
from models.keys import SCOPES, new_key, parse_key
from models.limits import NO_LIMITS
from models.repositories import access, overview
from models.repositories.access import KeyRow, TenantRow
from models.service_class import ServiceClass

_CLOCK = SystemClock()


async def create_tenant(name: str) -> dict[str, Any]:
    tenant = TenantRow(id=new_id("ten"), name=name, created_at=_CLOCK.now())
    try:
        async with _transaction() as (connection, _):
            await access.add_tenant(connection, tenant)
    except IntegrityError as error:
        raise Conflict(f"the tenant {name!r} exists. `penstock tenants list` shows all.") from error
    return asdict(tenant)


async def list_tenants() -> list[dict[str, Any]]:
    async with _transaction() as (connection, _):
        return [asdict(tenant) for tenant in await access.tenants(connection)]


async def disable_tenant(name_or_id: str, *, disabled: bool) -> dict[str, Any]:
    async with _transaction() as (connection, _):
        tenant = await _tenant(connection, name_or_id)
        await access.set_tenant_disabled(connection, tenant.id, disabled=disabled)
        return asdict(await _tenant(connection, tenant.id))


async def isolate_tenant(name_or_id: str, *, private: bool) -> dict[str, Any]:
    async with _transaction() as (connection, _):
        tenant = await _tenant(connection, name_or_id)
        await access.set_private_prefixes(connection, tenant.id, private=private)
        return asdict(await _tenant(connection, tenant.id))


async def create_key(
    tenant: str, name: str, *, scopes: Sequence[str], max_class: ServiceClass, expires_in: str | None
) -> dict[str, Any]:
    lifetime = _duration("--expires-in", expires_in) if expires_in else None
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise InvalidField("--scope", f"no scope {unknown[0]!r}. There are: {', '.join(SCOPES)}.")
    now = _CLOCK.now()
    async with _transaction() as (connection, settings):
        row, clear = new_key(
            (await _tenant(connection, tenant)).id,
            name,
            scopes=scopes,
            max_class=max_class,
            pepper=settings.api.pepper,
            created_at=now,
            expires_at=now + lifetime if lifetime else None,
        )
        await access.add_key(connection, row)
    return {**_shown(row), "key": clear}


async def loads() -> list[dict[str, Any]]:
    async with _transaction() as (connection, _):
        return [asdict(load) for load in await overview.loads(connection)]


async def list_keys(tenant: str | None) -> list[dict[str, Any]]:
    async with _transaction() as (connection, _):
        names = {row.id: row.name for row in await access.tenants(connection)}
        only = (await _tenant(connection, tenant)).id if tenant else None
        rows = await access.keys(connection, only)
        return [{**_shown(row), "tenant": names[row.tenant_id]} for row in rows]


async def revoke_key(key: str) -> dict[str, Any]:
    async with _transaction() as (connection, _):
        row = await _key(connection, key)
        await access.revoke_key(connection, row.id)
        return _shown(await _key(connection, row.id))


async def rotate_key(key: str, overlap: str) -> dict[str, Any]:
    """A new key with the old one's rights; the old one is good until the overlap is over."""
    kept = _duration("--overlap", overlap)
    now = _CLOCK.now()
    async with _transaction() as (connection, settings):
        old = await _key(connection, key)
        if old.revoked_at is not None:
            raise Conflict(f"{old.id} is revoked. Create a new key in its place.")
        row, clear = new_key(
            old.tenant_id,
            old.name,
            scopes=old.scopes,
            max_class=ServiceClass(old.max_class),
            pepper=settings.api.pepper,
            created_at=now,
            expires_at=old.expires_at,
        )
        await access.add_key(connection, row)
        end = now + kept
        await access.expire_key(connection, old.id, min(end, old.expires_at or end))
    return {**_shown(row), "key": clear, "replaces": old.id}


async def limit_tenant(tenant: str, changes: Mapping[str, Any], *, reset: bool) -> dict[str, Any]:
    async with _transaction() as (connection, _):
        return await _limit(connection, (await _tenant(connection, tenant)).id, changes, reset=reset)


async def limit_key(key: str, changes: Mapping[str, Any], *, reset: bool) -> dict[str, Any]:
    async with _transaction() as (connection, _):
        return await _limit(connection, (await _key(connection, key)).id, changes, reset=reset)


async def _limit(
    connection: AsyncConnection, owner: str, changes: Mapping[str, Any], *, reset: bool
) -> dict[str, Any]:
    """Without a change it only says what was set."""
    before = (await access.limits(connection, [owner])).get(owner, NO_LIMITS)
    after = replace(NO_LIMITS if reset else before, **changes)
    if after != before:
        await access.set_limits(connection, owner, after)
    return {"owner": owner, **after.document()}


@asynccontextmanager
async def _transaction() -> AsyncIterator[tuple[AsyncConnection, Settings]]:
    settings = load_settings()
    refuse_missing_folder(settings.database)
    database = open_database(settings.database)
    try:
        with plain_refusals():
            async with database.begin() as connection:
                await refuse_old_schema(connection)
                yield connection, settings
    finally:
        await database.close()


async def _tenant(connection: AsyncConnection, name_or_id: str) -> TenantRow:
    tenant = await access.find_tenant(connection, name_or_id)
    if tenant is None:
        raise NotFound(f"no tenant {name_or_id!r}. `penstock tenants list` shows all.")
    return tenant


async def _key(connection: AsyncConnection, text: str) -> KeyRow:
    """By its id, or by the key itself."""
    parts = parse_key(text)
    ids = {text, parts[0]} if parts else {text}
    row = next((row for row in await access.keys(connection) if row.id in ids), None)
    if row is None:
        raise NotFound("there is no such key. `penstock keys list` shows all.")
    return row


def _duration(field: str, text: str) -> timedelta:
    value = parse_duration(text)
    if not isinstance(value, timedelta):
        raise InvalidField(field, f"{field} {text!r} is no duration. Write 30s, 15m, 24h or 7d.")
    return value


def _shown(row: KeyRow) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name != "secret_hash"}
