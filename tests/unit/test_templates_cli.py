import json

import httpx
import pytest
from typer.testing import CliRunner

from cli.client import Client
from cli.main import app
from core.settings import load_settings

runner = CliRunner()
HOURS = {
    "name": "hours",
    "source": "admin",
    "phrases": ["when are you open"],
    "patterns": ["open.*"],
    "fields": [],
    "answer": "Always.",
    "hides": False,
}
SEEN: list[httpx.Request] = []


def answer(request: httpx.Request) -> httpx.Response:
    SEEN.append(request)
    if request.method == "GET":
        return httpx.Response(200, json={"data": [HOURS]})
    if request.method == "POST":
        known = json.loads(request.content)["question"] == "Open?"
        return httpx.Response(
            200, json={"name": "hours" if known else None, "answer": "Always." if known else None}
        )
    return httpx.Response(204)


@pytest.fixture(autouse=True)
def api(monkeypatch: pytest.MonkeyPatch) -> None:
    SEEN.clear()
    settings = load_settings({}, url="http://platform", key="sk-key_x-0123456789abcdef")
    monkeypatch.setattr("cli.templates._client", lambda: Client(settings, httpx.MockTransport(answer)))


def test_a_template_is_set_with_all_that_was_given() -> None:
    given = ["--answer", "Always.", "--pattern", "open.*", "--phrase", "open now"]

    done = runner.invoke(app, ["templates", "set", "hours", *given])

    [request] = SEEN
    assert done.exit_code == 0, done.output
    assert (request.method, request.url.path) == ("PUT", "/v1/admin/templates/hours")
    assert json.loads(request.content) == {
        "answer": "Always.",
        "phrases": ["open now"],
        "patterns": ["open.*"],
        "fields": [],
    }


def test_the_running_platform_is_asked_which_template_answers() -> None:
    found = runner.invoke(app, ["templates", "test", "--live", "Open?"])
    missed = runner.invoke(app, ["templates", "test", "--live", "Why?"])

    assert (found.exit_code, found.stdout.strip()) == (0, "hours: Always.")
    assert missed.exit_code == 1


def test_templates_are_listed_and_removed() -> None:
    assert "hours" in runner.invoke(app, ["templates", "list"]).stdout
    assert runner.invoke(app, ["templates", "remove", "hours"]).exit_code == 0
    assert SEEN[-1].method == "DELETE"
