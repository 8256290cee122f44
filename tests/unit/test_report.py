from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from typer.testing import CliRunner

from cli.client import Client
from cli.main import app
from core.errors import ConfigurationMistake
from core.settings import load_settings
from models.repositories.fleet import Shift
from queues.report import LevelChange, Period, percentile, summarise

SINCE = datetime(2026, 1, 1, 12, tzinfo=UTC)
UNTIL = SINCE + timedelta(hours=1)


def after(**span: float) -> datetime:
    return SINCE + timedelta(**span)


@dataclass(frozen=True)
class Ended:
    tenant: str = "acme"
    model: str = "m"
    service_class: str = "standard"
    status: str = "completed"
    created_at: datetime = SINCE
    started_at: datetime | None = SINCE + timedelta(seconds=2)
    finished_at: datetime | None = SINCE + timedelta(seconds=5)
    usage: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    degradation: dict[str, Any] | None = None


USED = {"prompt_tokens": 60, "completion_tokens": 40, "prompt_tokens_details": {"cached_tokens": 30}}
DONE = Ended(usage=USED)
FAILED = Ended(
    tenant="beta",
    status="failed",
    error={"code": "engine_stalled"},
    created_at=after(minutes=30, seconds=1),
    started_at=after(minutes=30, seconds=5),
    finished_at=after(minutes=31),
)
WAITING = Ended(status="queued", started_at=None, finished_at=None, service_class="bulk")
CUT = Ended(usage=USED, degradation={"level": 1})


def report(*jobs: Ended, **more: Any) -> dict[str, Any]:
    return summarise(Period(SINCE, UNTIL, jobs, **more))


def test_it_counts_outcomes_waits_and_tokens_by_model_and_class() -> None:
    found = report(DONE, CUT, FAILED, WAITING)

    bulk, standard = found["groups"]
    assert (bulk["service_class"], bulk["outcomes"], bulk["wait_ms"]["p50"]) == ("bulk", {"queued": 1}, None)
    assert standard["outcomes"] == {"completed": 2, "failed": 1}
    assert standard["answers_by_level"] == {"0": 1, "1": 1}
    assert standard["wait_ms"] == {"p50": 2000.0, "p95": 4000.0, "max": 4000.0}
    assert standard["run_ms"]["p50"] == 3000.0
    assert found["total"]["tokens"] == {"prompt": 120, "cached": 60, "completion": 80}
    assert found["tenants"][0] == {"tenant": "acme", "jobs": 3, "tokens": found["total"]["tokens"]}
    assert found["errors"] == [{"code": "engine_stalled", "jobs": 1}]


def test_the_timeline_puts_each_job_where_it_was_submitted() -> None:
    points = report(DONE, FAILED)["timeline"]

    assert len(points) == 60
    assert [number for number, point in enumerate(points) if point["submitted"]] == [0, 30]
    assert (points[30]["failed"], points[30]["wait_p95_ms"], points[1]["wait_p95_ms"]) == (1, 4000.0, None)


def test_time_at_a_level_adds_up_to_the_period() -> None:
    changes = [LevelChange("m", after(minutes=30), 1, 0), LevelChange("m", after(minutes=10), 0, 1)]

    [m, other] = report(changes=changes, levels={"m": 0, "n": 2})["levels"]

    assert m == {"model": "m", "seconds": {"0": 2400.0, "1": 1200.0}}
    assert other == {"model": "n", "seconds": {"2": 3600.0}}


def test_cost_counts_the_time_that_workers_were_there_and_of_those_that_have_gone() -> None:
    shifts = [
        Shift(("m",), after(minutes=30), UNTIL),
        Shift(("m", "n"), SINCE - timedelta(days=1), after(minutes=45)),
        Shift(("m",), after(minutes=10), after(minutes=25)),
        Shift(("m",), SINCE - timedelta(days=2), SINCE - timedelta(days=1)),
        Shift(("n",), SINCE, UNTIL),
    ]

    [cost] = report(DONE, shifts=shifts, prices={"m": 2.0})["cost"]

    assert cost == {
        "model": "m",
        "worker_hours": 1.5,
        "cost": 3.0,
        "tokens": 100,
        "per_million_tokens": 30_000.0,
    }


@pytest.mark.parametrize(
    ("values", "part", "found"),
    [([], 0.5, None), ([3, 1, 2], 0.5, 2), ([*range(1, 101)], 0.95, 95), ([7], 0.95, 7)],
)
def test_a_percentile_is_a_value_that_was_there(
    values: list[float], part: float, found: float | None
) -> None:
    assert percentile(values, part) == found


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    document: dict[str, Any] = orjson.loads(
        orjson.dumps(report(DONE, replace(CUT, model="other"), FAILED, prices={"m": 1.0}, levels={"m": 1}))
    )
    settings = load_settings({}, url="http://platform", key="sk-key_x-0123456789abcdef")
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=document))
    monkeypatch.setattr("cli.report._client", lambda: Client(settings, transport))
    return document


def test_the_command_prints_a_table_and_json(api: dict[str, Any]) -> None:
    plain = CliRunner().invoke(app, ["report"])
    document = CliRunner().invoke(app, ["report", "1h", "--json"])

    assert "3 jobs" in plain.stdout
    assert "engine_stalled\t1" in plain.stdout
    assert "m\t0 ms\t60 min\t0 ms\t0 ms" in plain.stdout
    assert orjson.loads(document.stdout) == api


def test_the_command_draws_a_picture(api: dict[str, Any], tmp_path: Path) -> None:
    picture = tmp_path / "hour.png"

    result = CliRunner().invoke(app, ["report", "--plot", str(picture)])
    nowhere = CliRunner().invoke(app, ["report", "--plot", str(tmp_path / "none" / "hour.png")])

    assert result.exit_code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert isinstance(nowhere.exception, ConfigurationMistake)
