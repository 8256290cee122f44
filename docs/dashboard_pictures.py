"""Draws each dashboard from a real run: `python -m docs.dashboard_pictures`, where prometheus is installed.

The platform runs under `tests.surge`, Prometheus reads every process, and answers every expression of every
panel as Grafana would ask it. Five minutes; needs PostgreSQL, Redis, RabbitMQ and the extra `plot`.
"""

import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx

from docs import dashboards
from docs.board_picture import Line, draw
from docs.boards import BOARDS
from tests import surge
from tests.local_servers import free_port
from tests.platform import PROCESSES, Platform, running_platform
from tests.prometheus import ask_range, health, running_prometheus, until
from tests.services import Services, open_services

IMAGES: Final = Path(__file__).parent / "images"
_STEP: Final = 2.0  # seconds between points


def main() -> None:
    with (
        open_services() as services,
        tempfile.TemporaryDirectory() as folder,
        surge.receiving() as receiver,
        _watched(services, Path(folder), surge.settings(Path(folder), receiver)) as (platform, client),
    ):
        until(lambda: health(client) == dict.fromkeys(PROCESSES, "up"), "every target is up")
        began = time.time()
        surge.Surge(platform, receiver, surge.Pace()).run()
        ended = time.time()
        for name in BOARDS:
            board = dashboards.board(name)
            found = {panel["id"]: answers(client, panel, began, ended) for panel in board["panels"]}
            path = IMAGES / f"dashboard-{name}.png"
            draw(_with_needs(name, board), found, path, span=(began, ended), notes=_notes(ended))
            empty = [panel["title"] for panel in board["panels"] if not found[panel["id"]]]
            sys.stdout.write(f"{name}: {len(found)} panels, without data: {', '.join(empty) or 'none'}\n")


@contextmanager
def _watched(
    services: Services, folder: Path, settings: Mapping[str, str]
) -> Iterator[tuple[Platform, httpx.Client]]:
    """With the names that a reader's own platform has, and not this machine's."""
    named = replace(services, namespace="penstock", redis_url=services.redis_url.removesuffix("/0") + "/9")
    ports = {name: free_port() for name in PROCESSES}
    with (
        running_platform(named, folder, metrics=ports, **settings) as platform,
        running_prometheus(
            folder, {name: [port] for name, port in ports.items()}, instance="{job}:9100"
        ) as client,
    ):
        yield platform, client


def answers(client: httpx.Client, panel: Mapping[str, Any], began: float, ended: float) -> list[Line]:
    """Every series of every expression of a panel, under its legend."""
    return [
        Line.of(_legend(target["legendFormat"], series["metric"]), series["values"])
        for target in panel["targets"]
        for series in ask_range(client, target["expr"], began, ended, step=_STEP)
    ]


def _legend(pattern: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), pattern).strip()


def _with_needs(name: str, board: Mapping[str, Any]) -> dict[str, Any]:
    """Beside what Grafana reads, what a panel cannot do without."""
    needs = [panel.needs for panel in BOARDS[name][1]]
    panels = [panel | {"needs": need} for panel, need in zip(board["panels"], needs, strict=True)]
    return {**board, "panels": panels}


def _notes(at: float) -> str:
    day = datetime.fromtimestamp(at, UTC)
    return f"drawn from the dashboard's JSON and Prometheus' answers, not by Grafana · {day:%Y-%m-%d}, UTC"


if __name__ == "__main__":
    main()
