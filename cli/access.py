"""`penstock tenants …` and `penstock keys …`: they work on the database itself, without the API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from models.service_class import ServiceClass

if TYPE_CHECKING:
    from collections.abc import Coroutine

tenants = typer.Typer(help="Create, list, disable, enable and isolate tenants.", no_args_is_help=True)
keys = typer.Typer(help="Create, list, revoke and rotate API keys.", no_args_is_help=True)

_T = TypeVar("_T")
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")]
Tenant = Annotated[str, typer.Argument(help="Name or id of the tenant.")]
KeyId = Annotated[str, typer.Argument(help="Id of the key, `key_…`; its clear text works too.")]


@tenants.command("create")
def create_tenant(
    name: Annotated[str, typer.Argument(help="A name that no other tenant has.")],
    *,
    as_json: Json = False,
) -> None:
    """Create a tenant and print its id."""
    from cli import ledger

    tenant = _run(ledger.create_tenant(name))
    _show(tenant, as_json=as_json, plain=tenant["id"])


@tenants.command("list")
def list_tenants(*, as_json: Json = False) -> None:
    """List all tenants."""
    from cli import ledger

    columns = ("id", "name", "created_at", "disabled_at", "private_prefixes")
    _list(_run(ledger.list_tenants()), columns, as_json=as_json)


@tenants.command("load")
def show_load(*, as_json: Json = False) -> None:
    """Who fills the queue: what each tenant has waiting and running, the most tokens first."""
    from cli import ledger

    columns = ("id", "name", "waiting", "tokens", "running", "oldest")
    _list(_run(ledger.loads()), columns, as_json=as_json)


@tenants.command("disable")
def disable_tenant(tenant: Tenant, *, as_json: Json = False) -> None:
    """Refuse the tenant's keys. What is queued still runs."""
    from cli import ledger

    changed = _run(ledger.disable_tenant(tenant, disabled=True))
    _show(changed, as_json=as_json, plain=f"{changed['name']} is disabled")


@tenants.command("enable")
def enable_tenant(tenant: Tenant, *, as_json: Json = False) -> None:
    """Accept the tenant's keys again."""
    from cli import ledger

    changed = _run(ledger.disable_tenant(tenant, disabled=False))
    _show(changed, as_json=as_json, plain=f"{changed['name']} is enabled")


@tenants.command("isolate")
def isolate_tenant(tenant: Tenant, *, as_json: Json = False) -> None:
    """Let the tenant's prompts share nothing with others' in an engine's prefix cache, from now on."""
    from cli import ledger

    changed = _run(ledger.isolate_tenant(tenant, private=True))
    _show(changed, as_json=as_json, plain=f"{changed['name']} shares no prefixes")


@tenants.command("share")
def share_tenant(tenant: Tenant, *, as_json: Json = False) -> None:
    """Let the tenant's prompts share their beginnings with others' again."""
    from cli import ledger

    changed = _run(ledger.isolate_tenant(tenant, private=False))
    _show(changed, as_json=as_json, plain=f"{changed['name']} shares prefixes")


@keys.command("create")
def create_key(
    tenant: Tenant,
    *,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "default",
    scope: Annotated[list[str] | None, typer.Option(help="May be repeated; `jobs` when left out.")] = None,
    max_class: Annotated[
        ServiceClass, typer.Option(help="The best service class that the key may use.")
    ] = ServiceClass.PREMIUM,
    expires_in: Annotated[str | None, typer.Option(help="For example 90d; never when left out.")] = None,
    as_json: Json = False,
) -> None:
    """Create a key. Its clear text is printed once, and never again."""
    from cli import ledger

    key = _run(
        ledger.create_key(tenant, name, scopes=scope or ["jobs"], max_class=max_class, expires_in=expires_in)
    )
    _show_secret(key, as_json=as_json)


@keys.command("list")
def list_keys(
    *,
    tenant: Annotated[str | None, typer.Option(help="Only the keys of this tenant.")] = None,
    as_json: Json = False,
) -> None:
    """List keys, never their clear text."""
    from cli import ledger

    columns = ("id", "tenant", "name", "scopes", "max_class", "created_at", "expires_at", "revoked_at")
    _list(_run(ledger.list_keys(tenant)), columns, as_json=as_json)


@keys.command("revoke")
def revoke_key(key: KeyId, *, as_json: Json = False) -> None:
    """Refuse the key from now on; processes notice within PENSTOCK_API__KEY_CACHE."""
    from cli import ledger

    revoked = _run(ledger.revoke_key(key))
    _show(revoked, as_json=as_json, plain=f"{revoked['id']} is revoked")


@keys.command("rotate")
def rotate_key(
    key: KeyId,
    *,
    overlap: Annotated[str, typer.Option(help="How long the old key stays good.")] = "24h",
    as_json: Json = False,
) -> None:
    """Create a successor with the same rights; the old key ends after the overlap."""
    from cli import ledger

    _show_secret(_run(ledger.rotate_key(key, overlap)), as_json=as_json)


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run(work)


def _show(row: dict[str, Any], *, as_json: bool, plain: str) -> None:
    from cli.console import emit

    if as_json:
        emit(row)
    else:
        typer.echo(plain)


def _show_secret(key: dict[str, Any], *, as_json: bool) -> None:
    from cli.console import say

    _show(key, as_json=as_json, plain=key["key"])
    if not as_json:
        say("Keep it now: it cannot be shown again.")


def _list(rows: list[dict[str, Any]], columns: tuple[str, ...], *, as_json: bool) -> None:
    from cli.console import emit, show_table

    if as_json:
        for row in rows:
            emit(row)
    else:
        show_table(columns, [[row[column] for column in columns] for row in rows])
