import json

import httpx
import pytest
from typer.testing import CliRunner

from cli.client import Client
from cli.main import app
from core.settings import load_settings

runner = CliRunner()
SUMS = {
    "jobs": 2,
    "degraded": 1,
    "prompt_tokens": 6,
    "cached_tokens": 0,
    "completion_tokens": 4,
    "total_tokens": 10,
}


def answer(request: httpx.Request) -> httpx.Response:
    if request.method == "DELETE":
        return httpx.Response(200, json={"object": "purge", "job_id": "job_1", "removed": 2})
    asked = dict(request.url.params)
    return httpx.Response(200, json={"asked": asked, "data": [{"group": "k1", **SUMS}], "total": SUMS})


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings({}, url="http://platform", key="sk-key_x-0123456789abcdef")
    for module in ("cli.limits", "cli.answers"):
        monkeypatch.setattr(f"{module}._client", lambda: Client(settings, httpx.MockTransport(answer)))


def test_usage_asks_for_what_was_given_and_shows_a_total() -> None:
    plain = runner.invoke(app, ["usage", "--group-by", "key"])
    as_json = runner.invoke(app, ["usage", "--from", "2030-01-01", "--json"])

    assert "k1" in plain.stdout
    assert "total" in plain.stdout
    assert json.loads(as_json.stdout)["asked"] == {"from": "2030-01-01", "group_by": "day"}


def test_a_purge_says_how_much_went() -> None:
    assert "2 entries of job_1" in runner.invoke(app, ["answers", "purge", "job_1"]).stdout
