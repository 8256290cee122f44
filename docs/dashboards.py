"""Writes the dashboards and their page: `make docs`. A test keeps both true, and queries to real metrics."""

from pathlib import Path
from typing import Any, Final

import orjson

from docs.boards import BOARDS
from docs.panel import HEIGHT, Panel

FOLDER: Final = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards"
_WIDTH: Final = 24


def board(name: str) -> dict[str, Any]:
    title, panels = BOARDS[name]
    documents, x, y = [], 0, 0
    for number, panel in enumerate(panels, start=1):
        if x + panel.width > _WIDTH:
            x, y = 0, y + HEIGHT
        documents.append(panel.document(number, x, y))
        x += panel.width
    return {
        "uid": f"penstock-{name}",
        "title": title,
        "tags": ["penstock"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "5s",
        "time": {"from": "now-1h", "to": "now"},
        "editable": False,
        "links": [{"type": "dashboards", "tags": ["penstock"], "title": "Penstock", "asDropdown": False}],
        "panels": documents,
    }


def files() -> dict[Path, bytes]:
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    return {FOLDER / f"{name}.json": orjson.dumps(board(name), option=options) for name in BOARDS}


def page() -> str:
    """Each dashboard's picture, and what its panels tell, by the numbers in the picture."""
    lines = list(_INTRODUCTION)
    for name, (title, panels) in BOARDS.items():
        short = title.removeprefix("Penstock: ")
        lines += ["", f"## {short[0].upper()}{short[1:]}", ""]
        lines += [
            f"![{title}, drawn from its JSON and Prometheus' answers](../images/dashboard-{name}.png)",
            "",
        ]
        lines += [_item(number, panel) for number, panel in enumerate(panels, start=1)]
    return "\n".join([*lines, ""])


def _item(number: int, panel: Panel) -> str:
    runbook = f" [Runbook](../how-to/runbooks/{panel.runbook}.md)." if panel.runbook else ""
    needs = f" Empty without {panel.needs}." if panel.needs else ""
    return f"{number}. **{panel.title}**. {panel.about} *{panel.act}*{runbook}{needs}"


_INTRODUCTION: Final = (
    "# Dashboards",
    "",
    "Grafana shows five, provisioned from `deploy/grafana/`. The numbers are those in the pictures: what a",
    "panel tells, and in italics what to do when it looks bad. Its description in Grafana says the same.",
    "",
    "**The pictures are not Grafana's own.** `python -m docs.dashboard_pictures` starts the platform, loads",
    "it for some minutes, lets a real Prometheus read every process, asks it for every panel's expressions",
    "as Grafana would, and draws the answers in the grid of the dashboard's JSON. The surge, the receiver",
    "that fails now and then and the worker that is killed in the middle are part of that load; a price of",
    "2.50 for an hour is assumed, and there was no GPU.",
)


if __name__ == "__main__":
    for path, text in files().items():
        path.write_bytes(text)
