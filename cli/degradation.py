"""`penstock degradation …`: what each model's callers get now, and pinning it, through the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(help="Show and pin the levels of degradation.", no_args_is_help=True)

_PATH = "/v1/admin/degradation"
_COLUMNS = ("model", "level", "name", "rule", "reason", "since", "pinned_until")
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="The served name.")]


@app.command()
def show(*, as_json: Json = False) -> None:
    """Show each model's level, by which rule and since when."""
    from cli.console import emit, show_table

    found = _client().call("GET", _PATH)
    if as_json:
        emit(found)
        return
    show_table(_COLUMNS, [[model[column] for column in _COLUMNS] for model in found["models"]])


@app.command()
def pin(
    name: Name,
    level: Annotated[int, typer.Option(min=0, max=3, help="0: what was asked … 3: similar answers.")],
    lasts: Annotated[str, typer.Option("--for", help="How long, for example 15m.")] = "1h",
) -> None:
    """Fix a model's level for a time, whatever the pressure."""
    _client().call("PUT", f"{_PATH}/{name}", json={"level": level, "expires_in": lasts})
    typer.echo(f"{name} stays at level {level} for {lasts}")


@app.command()
def unpin(name: Name) -> None:
    """Let the policy decide again."""
    _client().call("DELETE", f"{_PATH}/{name}")
    typer.echo(f"{name} is not pinned")


def _client() -> Client:
    from cli.client import Client
    from core.settings import load_settings

    return Client(load_settings())
