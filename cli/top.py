"""`penstock top`: what the console shows, in a terminal, through the API, with a key of admin scope."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.client import Client

app = typer.Typer()

_PATH: Final = "/v1/admin/overview"
_PAUSE: Final = 2.0  # seconds before an API that went away is asked again


@app.command()
def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print it once, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one overview a line.")] = False,
) -> None:
    """Watch queues, levels, workers and jobs of all tenants; the same as the console. Ctrl-C ends it."""
    client = _client()
    if once or not (as_json or sys.stdout.isatty()):
        _show_once(client, as_json=as_json)
        return
    with suppress(KeyboardInterrupt):
        if as_json:
            _print_all(client)
        else:
            _show_live(client)


def _show_once(client: Client, *, as_json: bool) -> None:
    from cli.console import emit

    overview = client.call("GET", _PATH)
    if as_json:
        emit(overview)
        return
    from rich.console import Console

    from cli.overview_screen import History, render

    Console().print(render(overview, History(), state="now"))


def _print_all(client: Client) -> None:
    from cli.console import emit

    for kind, data in _frames(client):
        if kind == "overview":
            emit(data)


def _show_live(client: Client) -> None:
    from rich.live import Live
    from rich.text import Text

    from cli.overview_screen import History, render

    history = History()
    last: dict[str, Any] | None = None
    with Live(Text("Connecting…"), screen=True, auto_refresh=False) as live:
        for kind, data in _frames(client):
            if kind == "overview":
                last = data
                live.update(render(data, history), refresh=True)
            elif last is None:
                live.update(Text(data["reason"], "bold red"), refresh=True)
            else:
                live.update(render(last, History(), state=f"OLD: {data['reason']}"), refresh=True)


def _frames(client: Client) -> Iterator[tuple[str, dict[str, Any]]]:
    """Without end: an API that went away is a frame of trouble, and is asked again."""
    from cli.client import ApiUnreachable
    from core.errors import Unauthenticated

    while True:
        try:
            for event in client.watch(f"{_PATH}/events"):
                if event.kind == "expired":
                    raise Unauthenticated("The key is not valid any more.")
                yield event.kind, event.data
            yield "trouble", {"reason": "The API ended the stream."}
        except ApiUnreachable as error:
            yield "trouble", {"reason": str(error)}
        time.sleep(_PAUSE)


def _client() -> Client:
    from cli.client import Client
    from core.settings import load_settings

    return Client(load_settings())
