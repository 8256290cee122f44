"""Rules and dashboards speak of metrics that exist, and every alert has its page."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from docs import dashboards
from docs.boards import BOARDS
from docs.generate import all_metrics
from docs.panel import Panel
from tests.prometheus import ROOT, RULES, binary

# What prometheus_client says of a process, and Prometheus of a scrape.
FOREIGN = {"process_resident_memory_bytes", "process_cpu_seconds_total", "up"}
NAME = re.compile(r"(?<![\w:.{\"$])[a-zA-Z_][\w:]*(?![\w:]*\s*\()")
WORDS = {"by", "le", "and", "on", "ignoring", "or", "without", "unless"}


def load(name: str) -> Any:
    return yaml.safe_load((RULES / name).read_text(encoding="utf-8"))


def rules(kind: str) -> Iterator[dict[str, Any]]:
    for name in ("rules.yml", "alerts.yml"):
        for group in load(name)["groups"]:
            yield from (rule for rule in group["rules"] if kind in rule)


ALERTS = {rule["alert"]: rule for rule in rules("alert")}
RECORDED = {rule["record"] for rule in rules("record")}


def known_samples() -> set[str]:
    names = set()
    for one in all_metrics():
        names.add(one.name)
        if one.kind == "histogram":
            names |= {one.name + suffix for suffix in ("_bucket", "_sum", "_count")}
    return names | RECORDED | FOREIGN


def read_names(expression: str) -> set[str]:
    """The metrics that an expression reads; labels, durations and grouping are not."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", "", expression)
    bare = re.sub(r"\b(?:by|on|ignoring|without)\s*\([^)]*\)", "", bare)
    return {name for name in NAME.findall(bare) if name not in WORDS}


# The same is told by another metric that is shown, or it is there to be joined with.
NOT_SHOWN = {"penstock_build_info", "penstock_slots", "penstock_tokens_accepted_total"}


def queries() -> Iterator[tuple[str, str]]:
    for name in BOARDS:
        for panel in dashboards.board(name)["panels"]:
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]
    for rule in (*rules("alert"), *rules("record")):
        yield rule.get("alert") or rule["record"], rule["expr"]


@pytest.mark.parametrize(("place", "expression"), list(queries()))
def test_a_query_reads_metrics_that_exist(place: str, expression: str) -> None:
    names = read_names(expression)

    assert names
    assert names - known_samples() == set()


def test_every_metric_is_on_a_dashboard_or_watched_by_an_alert() -> None:
    names = {name for _, expression in queries() for name in read_names(expression)}
    read = names | {re.sub("_(bucket|sum|count)$", "", name) for name in names}

    assert {one.name for one in all_metrics()} - read == NOT_SHOWN


@pytest.mark.parametrize(
    "panel", [panel for _, panels in BOARDS.values() for panel in panels], ids=lambda panel: panel.title
)
def test_a_panel_says_what_it_tells_and_what_to_do(panel: Panel) -> None:
    assert panel.about.endswith(".")
    assert panel.act.endswith(".")
    assert not panel.runbook or (ROOT / f"docs/how-to/runbooks/{panel.runbook}.md").exists()


@pytest.mark.parametrize("name", BOARDS)
def test_a_dashboard_has_its_picture(name: str) -> None:
    assert (ROOT / f"docs/images/dashboard-{name}.png").stat().st_size > 20_000


@pytest.mark.parametrize(("place", "expression"), list(queries()))
def test_a_query_filters_and_groups_by_labels_that_its_metrics_have(place: str, expression: str) -> None:
    labels = {label for one in all_metrics() for label in one.labels} | {"le", "job", "instance"}
    used = set(re.findall(r"[{,]\s*(\w+)\s*(?:=~|!~|!=|=)", expression))
    for group in re.findall(r"\b(?:by|on|ignoring)\s*\(([^)]*)\)", expression):
        used |= {name.strip() for name in group.split(",")}

    assert used - labels == set()


@pytest.mark.parametrize("path", dashboards.files(), ids=lambda path: path.stem)
def test_a_dashboard_is_up_to_date(path: Path) -> None:
    assert path.read_bytes() == dashboards.files()[path], "run `make docs`"


def test_every_dashboard_has_its_own_address_and_panels_that_do_not_overlap() -> None:
    boards = [orjson.loads(text) for text in dashboards.files().values()]

    assert len({board["uid"] for board in boards}) == len(boards) == 5
    for board in boards:
        cells = [
            (x, panel["gridPos"]["y"])
            for panel in board["panels"]
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_page_that_names_it(name: str) -> None:
    page = ROOT / ALERTS[name]["annotations"]["runbook"]

    assert name in page.read_text(encoding="utf-8")


def test_every_runbook_belongs_to_an_alert() -> None:
    used = {Path(rule["annotations"]["runbook"]).name for rule in ALERTS.values()}

    assert {path.name for path in (ROOT / "docs/how-to/runbooks").glob("*.md")} - {"README.md"} == used


@pytest.mark.parametrize("page", sorted((ROOT / "docs/how-to").rglob("*.md")), ids=lambda page: page.stem)
def test_a_command_that_a_page_names_exists(page: Path) -> None:
    reference = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    known = set(re.findall(r"^## (penstock .+)$", reference, re.MULTILINE))
    named = re.findall(r"`(penstock [a-z][a-z -]*[a-z])", page.read_text(encoding="utf-8"))

    unknown = [name for name in named if not any(_begins(name, command) for command in known)]
    assert unknown == []


def _begins(text: str, command: str) -> bool:
    """Whether the text is that command, with or without arguments, or the group that it belongs to."""
    return f"{text} ".startswith(f"{command} ") or f"{command} ".startswith(f"{text} ")


def test_every_alert_is_tested() -> None:
    tested = {case["alertname"] for test in load("tests.yml")["tests"] for case in test["alert_rule_test"]}

    assert set(ALERTS) == tested


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules.yml", "alerts.yml"],
        ["test", "rules", "tests.yml"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_promtool_agrees(arguments: list[str]) -> None:
    done = subprocess.run(
        [binary("promtool"), *arguments], cwd=RULES, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_scraped_service_is_in_the_compose_file_and_every_process_is_scraped() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    scraped = {
        name
        for scrape in load("prometheus.yml")["scrape_configs"]
        for source in scrape["dns_sd_configs"]
        for name in source["names"]
    }
    processes = {name for name, service in compose["services"].items() if "build" in service}

    assert scraped == processes - {"migrate", "flower"}
