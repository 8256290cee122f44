"""The command `penstock`, and the edge that turns a known failure into one line and a remedy."""

import os
import sys
from typing import Annotated, Final

import typer

from cli import (
    access,
    answers,
    batches,
    dead_letters,
    degradation,
    gpu,
    jobs,
    limits,
    models_admin,
    processes,
    report,
    templates,
    top,
    webhooks,
    why,
)
from core.errors import ConfigurationMistake, PenstockError

app = typer.Typer(
    name="penstock",
    help="Self-hosted asynchronous LLM inference: durable jobs, priority queues, dynamic batches.",
    no_args_is_help=True,
    # Known failures become one line in `main`; the rest are defects, and a plain traceback says most.
    pretty_exceptions_enable=False,
)
app.add_typer(processes.app)
app.add_typer(jobs.app)
app.add_typer(limits.app)
app.add_typer(top.app)
app.add_typer(report.app)
app.add_typer(why.app)
app.add_typer(gpu.app)
app.add_typer(access.tenants, name="tenants")
app.add_typer(access.keys, name="keys")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(batches.app, name="batch")
app.add_typer(answers.app, name="answers")
app.add_typer(models_admin.app, name="models")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(degradation.app, name="degradation")
app.add_typer(templates.app, name="templates")

_REMEDIES: Final = {
    "store_unavailable": "Start it, or correct PENSTOCK_DATABASE__URL. `penstock doctor` checks everything.",
    "broker_unavailable": "Start it, or correct PENSTOCK_BROKER__URL. `penstock doctor` checks everything.",
    "api_unreachable": "Start `penstock up` or `penstock api`, or correct PENSTOCK_URL.",
    "invalid_api_key": "Set PENSTOCK_KEY: `penstock up` prints one, and `penstock keys create` makes one.",
}


@app.command()
def doctor(
    *, as_json: Annotated[bool, typer.Option("--json", help="Print one JSON value a check.")] = False
) -> None:
    """Check every dependency and say what to do about what is wrong."""
    from cli.doctor import examine

    raise typer.Exit(examine(as_json=as_json))


def main() -> None:
    """The console script: exit code 2 for a mistake in the configuration, 1 for any other failure."""
    try:
        code = _run()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has what it wanted (`| head -1`); the interpreter shall not fail to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 0
    sys.exit(code)


def _run() -> int | str | None:
    try:
        app()
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # Typer makes a failure of it
            raise ended.__context__ from None
        return ended.code
    except PenstockError as error:
        remedy = _REMEDIES.get(error.code)
        typer.secho("Error: ", fg="red", bold=True, err=True, nl=False)
        typer.echo(f"{str(error).removesuffix('.')}. {remedy}" if remedy else str(error), err=True)
        return 2 if isinstance(error, ConfigurationMistake) else 1
    return 0


if __name__ == "__main__":
    main()
