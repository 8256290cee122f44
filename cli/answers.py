"""`penstock answers …`: removing a kept answer that is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(help="Remove kept answers that are wrong.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")]


@app.callback()
def answers() -> None:
    """Answers that are kept for the same requests and for similar questions."""


@app.command()
def purge(
    job_id: Annotated[
        str, typer.Argument(help="The job whose answer it is: `degradation.source_job_id` of those it gave.")
    ],
    *,
    as_json: Json = False,
) -> None:
    """Remove what this job's answer is kept under. What it already answered stays as it is."""
    from cli.console import emit

    gone = _client().call("DELETE", f"/v1/admin/answers/{job_id}")
    if as_json:
        emit(gone)
    else:
        typer.echo(f"{gone['removed']} entries of {job_id} are removed")


def _client() -> Client:
    from cli.client import Client
    from core.settings import load_settings

    return Client(load_settings())
