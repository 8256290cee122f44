"""`penstock webhooks …`: the delivery log from a shell, and a receiver for development."""

from __future__ import annotations

from typing import Annotated, Any

import typer

app = typer.Typer(help="List and replay webhook deliveries; listen for them.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one value a line.")]
_COLUMNS = ("id", "type", "state", "attempts", "last_status_code", "job_id", "endpoint_id", "created_at")


@app.command("list")
def list_deliveries(
    *,
    job: Annotated[str | None, typer.Option(help="Only of this job.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Only to this endpoint.")] = None,
    state: Annotated[
        str | None, typer.Option(help="pending, delivering, delivered, failed or cancelled.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="The newest so many.")] = 20,
    as_json: Json = False,
) -> None:
    """List deliveries, the newest first."""
    from cli.console import emit, show_table

    wanted = {"job_id": job, "endpoint_id": endpoint, "state": state, "limit": limit}
    given = {name: value for name, value in wanted.items() if value is not None}
    rows = _call("GET", "/v1/webhook_deliveries", params=given)["data"]
    if as_json:
        for row in rows:
            emit(row)
    else:
        show_table(_COLUMNS, [[row[column] for column in _COLUMNS] for row in rows])


@app.command()
def replay(
    deliveries: Annotated[list[str], typer.Argument(help="Ids of deliveries, `whd_…`.")],
    *,
    as_json: Json = False,
) -> None:
    """Send deliveries again, byte for byte and under the same event id."""
    from cli.console import emit

    for delivery in deliveries:
        sent = _call("POST", f"/v1/webhook_deliveries/{delivery}/redeliver")
        if as_json:
            emit(sent)
        else:
            typer.echo(f"{sent['id']}\t{sent['state']}")


@app.command()
def listen(
    secret: Annotated[list[str], typer.Option(help="The endpoint's `whsec_…`; twice during a rotation.")],
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 9000,
    as_json: Json = False,
) -> None:
    """Receive webhooks, verify and print them. For development.

    Penstock calls it when PENSTOCK_WEBHOOKS__ALLOW_HTTP, __PORTS and __ALLOWED_NETWORKS permit.
    """
    from cli.webhook_listener import serve

    serve(secret, host=host, port=port, as_json=as_json)


def _call(method: str, path: str, **request: Any) -> Any:
    from cli.client import Client
    from core.settings import load_settings

    return Client(load_settings()).call(method, path, **request)
