"""`penstock dead-letters …`: jobs whose attempts are used up, through the API, with a key of admin scope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(
    help="List, show, requeue and discard jobs that used up their attempts.", no_args_is_help=True
)

_PATH = "/v1/admin/dead_letters"
_COLUMNS = ("job_id", "tenant_id", "model", "attempt", "died_at", "requeued_as", "discarded_at")
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")]
Jobs = Annotated[list[str], typer.Argument(help="Ids of the jobs, `job_…`.")]


@app.command("list")
def list_letters(
    *,
    settled: Annotated[bool, typer.Option("--all", help="Those sent again or discarded, too.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=100, help="The newest so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List dead letters of all tenants, the newest first."""
    from cli.console import emit, show_table

    page = _client().call("GET", _PATH, params={"settled": settled, "limit": limit})
    if as_json:
        for letter in page["data"]:
            emit(letter)
        return
    show_table(_COLUMNS, [[letter[column] for column in _COLUMNS] for letter in page["data"]])


@app.command()
def show(job: Annotated[str, typer.Argument(help="Id of the job.")], *, as_json: Json = False) -> None:
    """Show why a job died, and everything that happened to it."""
    from cli.console import emit
    from cli.timeline import show_timeline

    letter = _client().call("GET", f"{_PATH}/{job}")
    if as_json:
        emit(letter)
        return
    typer.echo(f"{letter['job_id']}\t{letter['model']}\t{(letter['error'] or {}).get('message')}")
    show_timeline(letter["timeline"])


@app.command()
def requeue(jobs: Jobs, *, as_json: Json = False) -> None:
    """Submit them again, each as a new job of its tenant; prints the new ids."""
    for letter in _settle(jobs, "requeue"):
        _print(letter, letter["requeued_as"], as_json=as_json)


@app.command()
def discard(jobs: Jobs, *, as_json: Json = False) -> None:
    """Take them off the list. The failed jobs stay until their time is over."""
    for letter in _settle(jobs, "discard"):
        _print(letter, f"{letter['job_id']} discarded", as_json=as_json)


def _settle(jobs: list[str], action: str) -> list[dict[str, Any]]:
    client = _client()
    return [client.call("POST", f"{_PATH}/{job}/{action}") for job in jobs]


def _print(letter: dict[str, Any], plain: str, *, as_json: bool) -> None:
    from cli.console import emit

    if as_json:
        emit(letter)
    else:
        typer.echo(plain)


def _client() -> Client:
    from cli.client import Client
    from core.settings import load_settings

    return Client(load_settings())
