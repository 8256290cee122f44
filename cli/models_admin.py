"""`penstock models …`: what each model does, and pausing, draining and resuming one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(help="List, pause, drain and resume models.", no_args_is_help=True)

_PATH = "/v1/admin/models"
_COLUMNS = ("name", "state", "queued", "running", "since")
_LOOK: Final = 1.0  # seconds between looks at a draining model
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")]
Name = Annotated[str, typer.Argument(help="The served name.")]


@app.command("list")
def list_models(*, as_json: Json = False) -> None:
    """List models: serving or held, how many jobs wait and run."""
    from cli.console import emit, show_table

    found = _client().call("GET", _PATH)["data"]
    if as_json:
        for model in found:
            emit(model)
        return
    show_table(_COLUMNS, [[model[column] for column in _COLUMNS] for model in found])


@app.command()
def pause(name: Name, *, as_json: Json = False) -> None:
    """Begin nothing more of a model. What runs goes on, and submissions wait."""
    _show(_client().call("POST", f"{_PATH}/{name}/pause"), as_json=as_json)


@app.command()
def resume(name: Name, *, as_json: Json = False) -> None:
    """Begin its jobs again."""
    _show(_client().call("POST", f"{_PATH}/{name}/resume"), as_json=as_json)


@app.command()
def drain(
    name: Name,
    *,
    wait: Annotated[bool, typer.Option(help="Return when nothing of it runs any more.")] = True,
    as_json: Json = False,
) -> None:
    """Pause a model and wait until its last job has ended."""
    client = _client()
    model = client.call("POST", f"{_PATH}/{name}/drain")
    while wait and model["state"] == "draining":
        time.sleep(_LOOK)
        model = next(one for one in client.call("GET", _PATH)["data"] if one["name"] == name)
    _show(model, as_json=as_json)


def _show(model: dict[str, Any], *, as_json: bool) -> None:
    from cli.console import emit

    if as_json:
        emit(model)
    else:
        typer.echo(f"{model['name']} {model['state']}: {model['running']} running, {model['queued']} queued")


def _client() -> Client:
    from cli.client import Client
    from core.settings import load_settings

    return Client(load_settings())
