"""`penstock why`: where a job of any tenant stands, and why it waits, through the API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer()


@app.command()
def why(
    job_id: Annotated[str, typer.Argument(help="Id of the job, of any tenant.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say why a job waits and what helps, or how it ended; then everything that happened to it."""
    from cli.console import emit
    from cli.timeline import show_timeline

    job = _client().call("GET", f"/v1/admin/jobs/{job_id}")
    if as_json:
        emit(job)
        return
    if job["waits"]:
        typer.echo(f"{job['waits']['sentence']} {job['waits']['remedy']}")
    else:
        error = f": {job['error']['message']}" if job["error"] else ""
        typer.echo(f"It is {job['status']}{error}")
    show_timeline(job["timeline"])


def _client() -> Client:
    from cli.client import Client
    from core.settings import load_settings

    return Client(load_settings())
