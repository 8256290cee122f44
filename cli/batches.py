"""`penstock batch …`: a file of requests, from its upload to its output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(
    help="Run the requests of a file: submit, status, watch, output, cancel, retry, estimate.",
    no_args_is_help=True,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")]
Id = Annotated[str, typer.Argument(help="Id of the batch, `batch_…`.")]
Watch = Annotated[bool, typer.Option("--watch", help="Wait for the end; exit 1 unless all lines completed.")]
File = Annotated[
    Path,
    typer.Argument(
        help="JSON lines in OpenAI's form of a batch.", exists=True, dir_okay=False, readable=True
    ),
]
Endpoint = Annotated[str, typer.Option(help="/v1/chat/completions or /v1/completions.")]
_CHAT = "/v1/chat/completions"
_COLUMNS = ("id", "status", "completed", "failed", "total", "window", "created")


@app.command()
def submit(
    file: File,
    endpoint: Endpoint = _CHAT,
    window: Annotated[str, typer.Option(help="From 15m to 7d; what has not ended by then expires.")] = "24h",
    service_class: Annotated[str | None, typer.Option(help="premium, standard or bulk.")] = None,
    webhook: Annotated[str | None, typer.Option(help="A URL to call when the batch has ended.")] = None,
    *,
    metadata: Annotated[list[str] | None, typer.Option(help="key=value; may be repeated.")] = None,
    watch: Watch = False,
    as_json: Json = False,
) -> None:
    """Upload a file and run each of its lines."""
    from cli.batch_progress import upload

    client = _client()
    asked: dict[str, Any] = {"endpoint": endpoint, "completion_window": window}
    asked |= {"service_class": service_class} if service_class else {}
    asked |= {"webhook": {"url": webhook}} if webhook else {}
    asked |= {"metadata": _pairs(metadata)} if metadata else {}
    batch = client.call("POST", "/v1/batches", json={**asked, "input_file_id": upload(client, file)["id"]})
    _print_or_watch(client, batch, watch=watch, as_json=as_json)


@app.command()
def status(
    batches: Annotated[list[str] | None, typer.Argument(help="Ids; none: the newest.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="The newest so many.")] = 20,
    *,
    as_json: Json = False,
) -> None:
    """Show how far batches are; without an id, the newest of the tenant."""
    from cli.batch_progress import problems_of
    from cli.console import emit, say, show_table

    client = _client()
    if batches:
        found = [client.call("GET", f"/v1/batches/{one}") for one in batches]
    else:
        found = client.call("GET", "/v1/batches", params={"limit": limit})["data"]
    if as_json:
        for batch in found:
            emit(batch)
        return
    show_table(_COLUMNS, [_row(batch) for batch in found])
    for batch in found if batches else ():
        for problem in problems_of(batch):
            say(problem)


@app.command()
def watch(batch: Id, *, as_json: Json = False) -> None:
    """Wait for the end of a batch, with --json a value for each change; exit 1 unless all lines completed."""
    from cli.batch_progress import watch as watch_batch

    raise typer.Exit(watch_batch(_client(), batch, as_json=as_json))


@app.command()
def output(
    batch: Id,
    *,
    to: Annotated[Path | None, typer.Option(help="Into this file, in place of standard output.")] = None,
    errors: Annotated[bool, typer.Option("--errors", help="The lines that did not complete.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="What is done so far.")] = False,
) -> None:
    """Print the output, one JSON line for each line that completed, in the order of the input."""
    from cli.batch_progress import download

    download(_client(), batch, to=to, errors=errors, partial=partial)


@app.command()
def cancel(batch: Id, *, watch: Watch = False, as_json: Json = False) -> None:
    """Cancel a batch; what is done is delivered."""
    client = _client()
    cancelled = client.call("POST", f"/v1/batches/{batch}/cancel")
    _print_or_watch(client, cancelled, watch=watch, as_json=as_json)


@app.command()
def retry(batch: Id, *, watch: Watch = False, as_json: Json = False) -> None:
    """Run the lines that did not complete once more, as a new batch."""
    client = _client()
    again = client.call("POST", f"/v1/batches/{batch}/retry_failed")
    _print_or_watch(client, again, watch=watch, as_json=as_json)


@app.command()
def estimate(
    file: File,
    endpoint: Endpoint = _CHAT,
    *,
    rate: Annotated[
        float | None, typer.Option(min=0, help="Tokens a second; else as measured in the last batch.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what a file would cost, without running it: lines, tokens, shared prefixes, time."""
    from cli.batch_estimate import run_estimate

    raise typer.Exit(run_estimate(_client(), file, endpoint=endpoint, rate=rate, as_json=as_json))


def _print_or_watch(client: Client, batch: dict[str, Any], *, watch: bool, as_json: bool) -> None:
    from cli.batch_progress import watch as watch_batch
    from cli.console import emit, say

    if watch:
        if not as_json:
            typer.echo(batch["id"])
        raise typer.Exit(watch_batch(client, batch["id"], as_json=as_json))
    if as_json:
        emit(batch)
        return
    typer.echo(batch["id"])
    say(f"{batch['status']}; `penstock batch watch {batch['id']}` waits for its end")


def _row(batch: dict[str, Any]) -> list[object]:
    from datetime import UTC, datetime

    counts = batch["request_counts"]
    created = datetime.fromtimestamp(batch["created_at"], UTC)
    numbers = (counts["completed"], counts["failed"], counts["total"])
    return [batch["id"], batch["status"], *numbers, batch["completion_window"], created]


def _pairs(given: list[str]) -> dict[str, str]:
    from core.errors import InvalidField

    pairs = {}
    for one in given:
        key, separator, value = one.partition("=")
        if not separator:
            raise InvalidField("metadata", f"--metadata {one!r} is not key=value.")
        pairs[key] = value
    return pairs


def _client() -> Client:
    from cli.client import Client
    from core.settings import load_settings

    return Client(load_settings())
