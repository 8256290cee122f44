"""The commands that run a process of the platform, and `migrate`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from core.settings import Settings
    from models.catalogue import Catalogue

app = typer.Typer()
_PANEL = "Processes"
# Quiet: its banner is many lines, and a log has one event on each.
_CELERY = (sys.executable, "-m", "celery", "-q", "-A")


@app.command(rich_help_panel=_PANEL)
def up(
    port: Annotated[int, typer.Option(help="Port of the API; 0 takes a free one.")] = 8000,
    data_dir: Annotated[Path, typer.Option(help="Folder of the database file; created when absent.")] = Path(
        "var"
    ),
) -> None:
    """Run the whole platform in one process, with nothing installed beside Python packages."""
    from cli.up import run_up

    run_up(port=port, data_dir=data_dir)


@app.command(rich_help_panel=_PANEL)
def api() -> None:
    """Answer HTTP."""
    from api.server import serve

    serve(_settings())


@app.command(rich_help_panel=_PANEL)
def relay() -> None:
    """Release waiting jobs to RabbitMQ."""
    from core.loop import run
    from queues.relay import run_relay

    settings = _settings(show_metrics_of="relay")
    run(_serve_models(settings, lambda catalogue: run_relay(settings, catalogue.names)))


@app.command(rich_help_panel=_PANEL)
def upkeep() -> None:
    """Give back what dead workers held, expire, and delete what is past its time."""
    from core.loop import run
    from queues.upkeep import run_upkeep

    settings = _settings(show_metrics_of="upkeep")
    run(_serve_models(settings, lambda catalogue: run_upkeep(settings, catalogue)))


@app.command(
    rich_help_panel=_PANEL,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def worker(context: typer.Context) -> None:
    """Run models. Further arguments go to `celery worker`, for example `--hostname gpu-0@%h`."""
    from models.catalogue import find_catalogue

    find_catalogue(_settings())  # a mistake is said here, in one line
    command = [*_CELERY, "workers.app", "worker", *context.args]
    os.execv(sys.executable, command)  # noqa: S606 - signals go straight to Celery


@app.command(
    rich_help_panel=_PANEL,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def deliver(context: typer.Context) -> None:
    """Deliver webhooks. Further arguments go to `celery worker`."""
    _settings()  # a mistake is said here, in one line
    # Two workers of one name would be one to the broker, so this is not `celery@host`.
    name = [] if {"-n", "--hostname"} & set(context.args) else ["--hostname", "deliver@%h"]
    command = [*_CELERY, "workers.webhooks.app", "worker", *name, *context.args]
    os.execv(sys.executable, command)  # noqa: S606 - signals go straight to Celery


@app.command(
    rich_help_panel=_PANEL,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def flower(context: typer.Context) -> None:
    """Run Flower from its own environment. Further arguments go to `celery flower`."""
    from cli.flower_process import flower_command, flower_environment

    settings = _settings()
    command = flower_command(settings.flower, extra=context.args)
    os.execve(command[0], command, flower_environment(settings))  # noqa: S606 - the same


@app.command(rich_help_panel=_PANEL)
def migrate(
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 when the database is behind.")
    ] = False,
) -> None:
    """Bring the database to the schema of this version."""
    from cli.schema import upgrade

    step = upgrade(_settings().database, check=check)
    typer.echo(f"database: {step.current or 'empty'}, this version: {step.target}{step.outcome}")
    if check and step.is_needed:
        raise typer.Exit(1)


async def _serve_models(settings: Settings, run: Callable[[Catalogue], Coroutine[Any, Any, None]]) -> None:
    """`run(catalogue)` until SIGTERM or SIGINT; SIGHUP begins it again, the catalogue read anew.

    Either way what it opened is closed. A catalogue with a mistake changes nothing, and the log says why.
    """
    from core.collector import spare_long_lived
    from models.catalogue import find_catalogue, reread_catalogue

    loop, stop, catalogue = asyncio.get_running_loop(), asyncio.Event(), find_catalogue(settings)
    changed = asyncio.Event()

    def reread() -> None:
        nonlocal catalogue
        read = reread_catalogue(settings)
        if read is not None:
            catalogue = read
            changed.set()

    spare_long_lived()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reread)
    while not stop.is_set():
        changed.clear()
        await _until_first(run(catalogue), stop, changed)


async def _until_first(work: Coroutine[Any, Any, None], *events: asyncio.Event) -> None:
    """Ends the work, by cancelling it, at the first of the events; raises what the work raises."""
    task = asyncio.ensure_future(work)
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait([task, *waits], return_when=asyncio.FIRST_COMPLETED)
    for one in (task, *waits):
        one.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _settings(*, show_metrics_of: str | None = None) -> Settings:
    from core.logs import configure_logs
    from core.metrics.port import open_port
    from core.settings import load_settings
    from core.tracing import start_tracing

    settings = load_settings()
    configure_logs(settings.log)
    if show_metrics_of is not None:
        open_port(settings.metrics, show_metrics_of)
        start_tracing(settings.tracing, show_metrics_of)
    return settings
