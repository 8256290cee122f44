from typing import Any

import httpx
import orjson
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cli.client import Client
from cli.main import app
from cli.overview_screen import History, render, span, sparkline
from core.settings import load_settings

QUEUE = {
    "service_class": "standard",
    "waiting": 7,
    "tokens": 900,
    "released": 2,
    "scheduled": 0,
    "oldest_wait_ms": 1500.0,
    "predicted_wait_ms": None,
    "jobs_per_second": 2.0,
    "is_shed": False,
}
MODEL = {
    "name": "default",
    "level": 1,
    "level_name": "truncate",
    "tokens_per_second": 50.0,
    "queues": [QUEUE],
}
JOB = {
    "id": "job_1",
    "status": "failed",
    "tenant": "acme",
    "model": "default",
    "service_class": "bulk",
    "wait_ms": 12.0,
    "run_ms": None,
    "error": {"code": "engine_stalled", "message": "silence"},
}
WORKER = {
    "name": "w1",
    "state": "ready",
    "gpus": [{"utilization": 0.5, "memory_used": 2**30, "memory": 2**31}],
    "models": {
        "default": {"slots": 8, "running": 3, "tokens_per_second": 50.0, "cached_share": 0.25, "finished": 9}
    },
}
OVERVIEW: dict[str, Any] = {
    "object": "overview",
    "at": "2026-01-01T00:00:00+00:00",
    "totals": {"waiting": 7, "running": 3, "slots": 8, "dead_letters": 0},
    "attention": [{"tone": "warn", "sentence": "default is at level 1.", "remedy": "It ends by itself."}],
    "models": [MODEL],
    "workers": [WORKER],
    "jobs": {"recent": [], "waiting": [], "running": [], "failing": [JOB]},
    "batches": [
        {"id": "batch_1", "status": "running", "completed": 3, "failed": 1, "total": 9, "finished_at": None}
    ],
    "changes": [
        {"at": "2026-01-01T00:00:00+00:00", "model": "default", "before": 0, "after": 1, "reason": "60 wait",
         "rule": "waiting", "actor": "policy"}
    ],
}  # fmt: skip


def text_of(overview: dict[str, Any]) -> str:
    console = Console(width=160, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(render(overview, History()))
    return captured.get()


def test_the_screen_says_what_waits_who_works_and_what_failed() -> None:
    shown = text_of(OVERVIEW)

    for said in (
        "default is at level 1.",
        "1.5 s",
        "3/8",
        "50%",
        "engine_stalled",
        "4/9",
        "0 → 1",
        "60 wait",
    ):
        assert said in shown


def test_an_empty_platform_says_how_to_start() -> None:
    empty = OVERVIEW | {"workers": [], "attention": [], "jobs": {name: [] for name in OVERVIEW["jobs"]}}

    shown = text_of(empty)

    assert "Start one: penstock worker" in shown
    assert "All is well" in shown


@pytest.mark.parametrize(("values", "line"), [([], ""), ([0, 0], "▁▁"), ([0, 4, 8], "▁▅█"), ([5], "█")])
def test_a_sparkline_goes_from_nothing_to_the_largest(values: list[float], line: str) -> None:
    assert sparkline(values) == line


@pytest.mark.parametrize(
    ("milliseconds", "said"),
    [(None, "-"), (12.4, "12 ms"), (1500, "1.5 s"), (600_000, "10 min"), (36_000_000, "10.0 h")],
)
def test_times_are_said_in_their_unit(milliseconds: float | None, said: str) -> None:
    assert span(milliseconds) == said


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An API that shows one frame, goes away, and then knows the key no more."""
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        if not request.url.path.endswith("/events"):
            return httpx.Response(200, json=OVERVIEW)
        if len(asked) == 1:
            body = b"event: overview\ndata: " + orjson.dumps(OVERVIEW) + b"\n\n"
            return httpx.Response(200, content=body)
        if len(asked) == 2:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, content=b"event: expired\ndata: {}\n\n")

    settings = load_settings({}, url="http://platform", key="sk-key_x-0123456789abcdef")
    monkeypatch.setattr("cli.top._client", lambda: Client(settings, httpx.MockTransport(handle)))
    monkeypatch.setattr("cli.top._PAUSE", 0)
    return asked


def test_once_prints_one_overview(api: list[str]) -> None:
    plain = CliRunner().invoke(app, ["top"])
    document = CliRunner().invoke(app, ["top", "--once", "--json"])

    assert "default is at level 1." in plain.stdout
    assert orjson.loads(document.stdout) == OVERVIEW


def test_a_stream_goes_on_after_an_outage_and_ends_with_the_key(api: list[str]) -> None:
    result = CliRunner().invoke(app, ["top", "--json"])

    assert [orjson.loads(line) for line in result.stdout.splitlines()] == [OVERVIEW]
    assert len(api) == 3
    assert "not valid any more" in str(result.exception)


@pytest.mark.parametrize(
    ("job", "said"),
    [
        (
            {"waits": {"code": "no_worker", "sentence": "No worker.", "remedy": "Start one."}},
            "No worker. Start one.",
        ),
        ({"status": "failed", "error": {"code": "x", "message": "silence"}}, "It is failed: silence"),
    ],
)
def test_why_says_the_reason_or_the_end(
    monkeypatch: pytest.MonkeyPatch, job: dict[str, Any], said: str
) -> None:
    change = {
        "at": "2026-01-01T00:00:00Z",
        "status": "queued",
        "attempt": 0,
        "worker": None,
        "reason": "submitted",
    }
    document = {"status": "queued", "waits": None, "error": None, "timeline": [change]} | job
    settings = load_settings({}, url="http://platform", key="sk-key_x-0123456789abcdef")
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json=document))
    monkeypatch.setattr("cli.why._client", lambda: Client(settings, transport))

    result = CliRunner().invoke(app, ["why", "job_1"])

    assert result.stdout.splitlines()[0] == said
    assert "submitted" in result.stdout
