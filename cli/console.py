"""What the commands print: results on standard output, everything else on standard error."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import typer


def emit(value: Any) -> None:
    """One JSON value on one line."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=str))


def say(text: str) -> None:
    """A word to the person, out of the way of a pipe."""
    typer.echo(text, err=True)


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on a terminal; tab-separated lines in a pipe."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        for row in rows:
            typer.echo("\t".join(_cell(value) for value in row))
        return
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    console.print(table)


def _cell(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "-" if value is None else str(value).replace("\t", " ").replace("\n", " ")
