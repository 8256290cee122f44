"""`penstock templates …`: which template would answer a question, from the file, without a server."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Check template answers.", no_args_is_help=True)


@app.command()
def test(question: Annotated[str, typer.Argument(help="What somebody might ask.")]) -> None:
    """Say which template answers a question; exit 1 where none does."""
    from core.settings import load_settings
    from queues.templates import find_templates, match

    found = match(find_templates(load_settings().overload.templates), question)
    if found is None:
        typer.echo("no template matches; the answer would be truncated instead")
        raise typer.Exit(1)
    typer.echo(f"{found.name}: {found.answer}")


@app.callback()
def _group() -> None:
    """A group, although it has one command so far."""
