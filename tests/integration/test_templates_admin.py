"""Template answers through the API: set, tried, tampered with, and in force; on both profiles."""

import time
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from models.degradation import Level
from queues.policy.pressure import Pressure
from queues.policy.state import State, Verdict
from queues.templates import find_templates

HOURS = {"phrases": ["when are you open"], "answer": "From nine to five, {name}.", "fields": ["name"]}
FILE = """
[[template]]
name = "hours"
phrases = ["when are you open"]
answer = "Always."
"""


def press(app: FastAPI) -> None:
    app.state.parts.board._verdicts = {
        "default": Verdict(State(level=Level.TEMPLATE, reason="84 wait"), Pressure(at=time.time()))
    }


async def test_a_template_that_is_set_answers_and_one_that_is_removed_does_not(
    api_client: httpx.AsyncClient, app: FastAPI
) -> None:
    press(app)
    ask = {"prompt": "When are you open?", "metadata": {"name": "Ada"}}

    put = await api_client.put("/v1/admin/templates/hours", json=HOURS)
    answered = await api_client.post("/v1/jobs", json=ask)
    listed = (await api_client.get("/v1/admin/templates")).json()["data"]
    removed = await api_client.delete("/v1/admin/templates/hours")
    queued = await api_client.post("/v1/jobs", json=ask)
    again = await api_client.delete("/v1/admin/templates/hours")

    assert (put.status_code, removed.status_code, again.status_code) == (204, 204, 404)
    assert answered.json()["output"]["text"] == "From nine to five, Ada."
    assert answered.json()["degradation"]["name"] == "template"
    assert [(one["name"], one["source"], one["hides"]) for one in listed] == [("hours", "admin", False)]
    assert queued.status_code == 202


async def test_one_that_is_set_goes_before_the_files_own_of_its_name(
    api_client: httpx.AsyncClient, app: FastAPI, tmp_path: Path
) -> None:
    (tmp_path / "templates.toml").write_text(FILE)
    app.state.parts.templates._of_file = find_templates(tmp_path / "templates.toml")
    question = {"question": "When are you open?", "metadata": {"name": "Ada"}}

    before = (await api_client.post("/v1/admin/templates/test", json=question)).json()
    await api_client.put("/v1/admin/templates/hours", json=HOURS)
    during = (await api_client.post("/v1/admin/templates/test", json=question)).json()
    await api_client.delete("/v1/admin/templates/hours")
    after = await api_client.delete("/v1/admin/templates/hours")

    assert (before["answer"], during["answer"]) == ("Always.", "From nine to five, Ada.")
    assert after.status_code == 409


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"patterns": ["(?=x)"]}, "patterns"),
        ({"fields": []}, "answer"),
        ({"phrases": []}, "phrases"),
        ({"code": "{{ x }}"}, "code"),
    ],
)
async def test_what_is_no_template_is_refused_by_field(
    api_client: httpx.AsyncClient, changes: dict[str, object], field: str
) -> None:
    answer = await api_client.put("/v1/admin/templates/hours", json={**HOURS, **changes})

    assert answer.status_code == 422
    assert [problem["field"] for problem in answer.json()["errors"]] == [field]


async def test_a_question_that_nothing_answers_is_told_so(api_client: httpx.AsyncClient) -> None:
    answer = await api_client.post("/v1/admin/templates/test", json={"question": "Why?"})

    assert answer.json() == {"object": "template_match", "name": None, "answer": None}
