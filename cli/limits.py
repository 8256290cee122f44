"""`penstock tenants limit`, `penstock keys limit` and `penstock usage`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.access import KeyId, Tenant, keys, tenants
from models.limits import Complexity

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")]
Bound = Annotated[int | None, typer.Option(min=0, help="0: no bound. Left out: as it is.")]
Ceiling = Annotated[Complexity | None, typer.Option(help="The heaviest requests it may send.")]
Reset = Annotated[bool, typer.Option("--reset", help="Forget what was set before: the defaults count.")]

_COLUMNS = (
    "group",
    "jobs",
    "degraded",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "total_tokens",
)


@tenants.command("limit")
def limit_tenant(
    tenant: Tenant,
    *,
    requests_per_minute: Bound = None,
    tokens_per_minute: Bound = None,
    tokens_per_day: Bound = None,
    concurrent_jobs: Bound = None,
    max_complexity: Ceiling = None,
    reset: Reset = False,
    as_json: Json = False,
) -> None:
    """Set what a tenant may use, over all of its keys, and print what counts beside the defaults."""
    from cli import ledger

    changes = _changes(
        requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_jobs, max_complexity
    )
    _show(asyncio.run(ledger.limit_tenant(tenant, changes, reset=reset)), as_json=as_json)


@keys.command("limit")
def limit_key(
    key: KeyId,
    *,
    requests_per_minute: Bound = None,
    tokens_per_minute: Bound = None,
    tokens_per_day: Bound = None,
    concurrent_jobs: Bound = None,
    max_complexity: Ceiling = None,
    reset: Reset = False,
    as_json: Json = False,
) -> None:
    """Set what a key may use; its tenant's limits count besides."""
    from cli import ledger

    changes = _changes(
        requests_per_minute, tokens_per_minute, tokens_per_day, concurrent_jobs, max_complexity
    )
    _show(asyncio.run(ledger.limit_key(key, changes, reset=reset)), as_json=as_json)


def _changes(
    requests: int | None, tokens: int | None, daily: int | None, jobs: int | None, heaviest: Complexity | None
) -> dict[str, Any]:
    given = {
        "requests_per_minute": requests,
        "tokens_per_minute": tokens,
        "tokens_per_day": daily,
        "concurrent_jobs": jobs,
        "max_complexity": heaviest,
    }
    return {name: value for name, value in given.items() if value is not None}


def _show(limits: dict[str, Any], *, as_json: bool) -> None:
    from cli.console import emit, show_table

    if as_json:
        emit(limits)
        return
    rows = [
        [name, "default" if value is None else "no bound" if value == 0 else str(value)]
        for name, value in limits.items()
        if name != "owner"
    ]
    show_table(("limit", "set to"), rows)


@app.command("usage")
def show_usage(
    *,
    since: Annotated[str | None, typer.Option("--from", help="First day, such as 2030-01-31.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Last day; today when left out.")] = None,
    group_by: Annotated[str, typer.Option(help="day, key, model or class.")] = "day",
    as_json: Json = False,
) -> None:
    """Show what the finished jobs of your tenant used."""
    from cli.console import emit, show_table

    given = {"from": since, "to": until, "group_by": group_by}
    params = {name: value for name, value in given.items() if value is not None}
    found = _client().call("GET", "/v1/usage", params=params)
    if as_json:
        emit(found)
        return
    rows = [*found["data"], {"group": "total", **found["total"]}]
    show_table(_COLUMNS, [[row[column] for column in _COLUMNS] for row in rows])


def _client() -> Client:
    from cli.client import Client
    from core.settings import load_settings

    return Client(load_settings())
