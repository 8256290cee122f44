"""`penstock gpu`."""

from typing import Annotated

import typer

app = typer.Typer()


@app.command("gpu")
def show(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False
) -> None:
    """Show this machine's GPUs and MIG instances, and what each SGLang entry of the catalogue runs."""
    from cli.gpu_report import report

    typer.echo(report(as_json=as_json))
