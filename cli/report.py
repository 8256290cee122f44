"""`penstock report`: what the last hour was like, through the API, with a key of admin scope."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.client import Client

app = typer.Typer()

_PATH: Final = "/v1/admin/report"
_GROUP_COLUMNS: Final = (
    *("model", "class", "jobs", "completed", "failed", "expired", "cancelled", "unfinished", "degraded"),
    *("wait p50", "wait p95", "run p50", "run p95", "prompt", "cached", "completion"),
)


@app.command()
def report(
    window: Annotated[str, typer.Argument(help="How far back: 15m, 1h, 7d at the most.")] = "1h",
    *,
    plot: Annotated[
        Path | None, typer.Option(help="Draw it into this PNG file, too; needs penstock[plot].")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Summarise what was submitted lately: outcomes, waits, tokens, levels and cost, of all tenants."""
    from cli.console import emit, say

    found = _client().call("GET", _PATH, params={"window": window})
    if plot is not None:
        from cli.report_plot import draw

        draw(found, plot)
        say(f"{plot} is drawn")
    if as_json:
        emit(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    from cli.console import show_table

    times = [
        f"{datetime.fromisoformat(found[name]).astimezone():%Y-%m-%d %H:%M}" for name in ("since", "until")
    ]
    total = found["total"]
    typer.echo(f"{times[0]} to {times[1]}: {total['jobs']} jobs{_partial(found)}")
    if not total["jobs"]:
        return
    everything = {"model": "all", "service_class": "", **total}
    groups = found["groups"] if len(found["groups"]) == 1 else [*found["groups"], everything]
    show_table(_GROUP_COLUMNS, [_group(group) for group in groups])
    _show_lists(found)


def _partial(found: dict[str, Any]) -> str:
    return ", the newest of more" if found["is_partial"] else ""


def _group(group: dict[str, Any]) -> Sequence[object]:
    from cli.overview_screen import span

    outcomes, tokens = group["outcomes"], group["tokens"]
    over = ("completed", "failed", "expired", "cancelled")
    return (
        group["model"],
        group["service_class"],
        group["jobs"],
        *(outcomes.get(name, 0) for name in over),
        group["jobs"] - sum(outcomes.get(name, 0) for name in over),
        sum(count for level, count in group["answers_by_level"].items() if level != "0"),
        *(span(group[what][part]) for what in ("wait_ms", "run_ms") for part in ("p50", "p95")),
        tokens["prompt"],
        tokens["cached"],
        tokens["completion"],
    )


def _show_lists(found: dict[str, Any]) -> None:
    from cli.console import show_table
    from cli.overview_screen import span

    if found["errors"]:
        show_table(("error", "jobs"), [(one["code"], one["jobs"]) for one in found["errors"]])
    show_table(
        ("tenant", "jobs", "prompt", "completion"),
        [
            (one["tenant"], one["jobs"], one["tokens"]["prompt"], one["tokens"]["completion"])
            for one in found["tenants"]
        ],
    )
    show_table(
        ("model", "time at level 0", "1", "2", "3"),
        [
            (one["model"], *(span(one["seconds"].get(str(level), 0) * 1000) for level in range(4)))
            for one in found["levels"]
        ],
    )
    show_table(
        ("model", "worker hours", "cost", "tokens", "per million tokens"),
        [
            (one["model"], one["worker_hours"], one["cost"], one["tokens"], one["per_million_tokens"])
            for one in found["cost"]
        ],
    )


def _client() -> Client:
    from cli.client import Client
    from core.settings import load_settings

    return Client(load_settings())
