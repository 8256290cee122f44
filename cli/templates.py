"""`penstock templates …`: list, set and remove template answers through the API; try the file without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(help="List, set, remove and try template answers.", no_args_is_help=True)

_PATH = "/v1/admin/templates"
_COLUMNS = ("name", "source", "phrases", "patterns", "fields", "answer")
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")]
Name = Annotated[str, typer.Argument(help="The template's name.")]


@app.command("list")
def list_templates(*, as_json: Json = False) -> None:
    """List the templates in the order in which they are tried."""
    from cli.console import emit, show_table

    found = _client().call("GET", _PATH)["data"]
    if as_json:
        for template in found:
            emit(template)
        return
    show_table(_COLUMNS, [[_shown(template[column]) for column in _COLUMNS] for template in found])


@app.command("set")
def set_template(
    name: Name,
    answer: Annotated[str, typer.Option(help="The answer; {name} is filled from the job's metadata.")],
    *,
    phrase: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    pattern: Annotated[
        list[str] | None, typer.Option(help="RE2 expression for a whole question; may be repeated.")
    ] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="A metadata name that the answer may use; may be repeated.")
    ] = None,
) -> None:
    """Set a template: it answers within seconds, and before one of the file with its name."""
    intent = {
        "answer": answer,
        "phrases": phrase or [],
        "patterns": pattern or [],
        "fields": field or [],
    }
    _client().call("PUT", f"{_PATH}/{name}", json=intent)
    typer.echo(f"{name} is set")


@app.command()
def remove(name: Name) -> None:
    """Remove a template that was set."""
    _client().call("DELETE", f"{_PATH}/{name}")
    typer.echo(f"{name} is removed")


@app.command("test")
def try_question(
    question: Annotated[str, typer.Argument(help="What somebody might ask.")],
    *,
    live: Annotated[bool, typer.Option(help="Ask the running platform, not the file.")] = False,
) -> None:
    """Say which template answers a question; exit 1 where none does."""
    found = _found_live(question) if live else _found_in_file(question)
    if found is None:
        typer.echo("no template matches; the answer would be truncated instead")
        raise typer.Exit(1)
    name, answer = found
    typer.echo(f"{name}: {answer}")


def _found_in_file(question: str) -> tuple[str, str] | None:
    from core.settings import load_settings
    from queues.templates import find_templates, match

    found = match(find_templates(load_settings().overload.templates), question)
    return None if found is None else (found.name, found.answer)


def _found_live(question: str) -> tuple[str, str] | None:
    found = _client().call("POST", f"{_PATH}/test", json={"question": question})
    if found["name"] is None:
        return None
    return found["name"], found["answer"] or "(the metadata of the job must fill its fields)"


def _shown(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "; ".join(value)


def _client() -> Client:
    from cli.client import Client
    from core.settings import load_settings

    return Client(load_settings())
