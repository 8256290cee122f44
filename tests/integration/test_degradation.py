"""Degraded answers through the API: what is told to whom, on both profiles."""

import time
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from core.settings import Settings
from models.degradation import Degradation, Level
from models.dialect import Database
from models.lifecycle import Status
from models.repositories import templates
from models.repositories.submission import ReadyAnswer
from queues.answerers import Question, first_answer
from queues.policy.pressure import Pressure, Reading
from queues.policy.state import State, Verdict
from tests.contracts.stores import new_job, queued, read
from tests.integration.test_worker_leases import MODEL, NEVER, bench_of
from tests.unit.test_dispatch import FakeDelivery, envelope


def at_level(level: Level) -> Verdict:
    return Verdict(State(level=level, since=time.time(), reason="84 wait"), Pressure(at=time.time()))


class Parrot:
    """Answers everything from a level on."""

    level = Level.TEMPLATE

    async def answer(self, question: Question) -> ReadyAnswer | None:
        label = Degradation(Level.TEMPLATE, "template", question.reason)
        return ReadyAnswer(
            output={"text": "Hello.", "finish_reason": "stop"},
            usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            expires_at=question.expires_at,
            degradation=label,
        )


async def test_an_answerer_is_asked_from_its_level_on_and_where_it_is_allowed() -> None:
    job = new_job()

    def asked(level: Level, **changes: object) -> Question:
        one = new_job(**changes) if changes else job
        return Question.of_new(one, level=level, reason="why", keep=timedelta(days=1))

    refused = {"request": {"prompt": "x", "degradation": {"allow": ["truncate"]}}}

    assert await first_answer([Parrot()], asked(Level.TRUNCATE)) is None
    assert await first_answer([Parrot()], asked(Level.TEMPLATE)) is not None
    assert await first_answer([Parrot()], asked(Level.SIMILAR, **refused)) is None


async def test_who_waited_while_the_level_rose_is_answered_at_the_claim(
    settings: Settings, database: Database
) -> None:
    intent = {"phrases": ["when are you open"], "answer": "From nine to five, {name}.", "fields": ["name"]}
    async with database.begin() as connection:
        await templates.put(database, connection, "hours", intent, actor="ada")
    async with bench_of(settings, database, latency=NEVER) as bench:
        bench.worker._board._verdicts = {MODEL: at_level(Level.TEMPLATE)}
        asked = {"prompt": "When are you open?", "max_tokens": 400}
        job = await queued(database, model=MODEL, request=asked, metadata={"name": "Ada"})
        refused = {**asked, "degradation": {"allow": []}}
        other = await queued(database, model=MODEL, request=refused, metadata={"name": "Bob"})
        first, second = FakeDelivery(envelope(job.id)), FakeDelivery(envelope(other.id))

        bench.worker.take([first, second])  # type: ignore[list-item]

        assert (await first.ended)[0] == "succeeded"
        view = await read(database, job.id)
        assert (view.status, (view.output or {})["text"]) == (Status.COMPLETED, "From nine to five, Ada.")
        assert (view.degradation or {})["name"] == "template"
        await second.begun.wait()
        assert (await read(database, other.id)).status is Status.RUNNING


async def test_a_pin_is_kept_and_the_audit_names_the_key(api_client: httpx.AsyncClient) -> None:
    pinned = await api_client.put("/v1/admin/degradation/default", json={"level": 2, "expires_in": "15m"})
    freed = await api_client.delete("/v1/admin/degradation/default")

    shown = (await api_client.get("/v1/admin/degradation")).json()
    assert (pinned.status_code, freed.status_code) == (204, 204)
    assert [change["rule"] for change in shown["changes"]] == ["unpin", "pin"]
    assert shown["changes"][1]["after"] == 2
    assert shown["changes"][1]["actor"]


async def test_nobody_pins_a_model_that_is_not_served(api_client: httpx.AsyncClient) -> None:
    answer = await api_client.put("/v1/admin/degradation/nobody", json={"level": 2, "expires_in": "15m"})

    assert answer.status_code == 404


async def test_admission_poll_and_list_tell_one_estimate(api_client: httpx.AsyncClient, app: FastAPI) -> None:
    body = {"prompt": "How are you?", "max_tokens": 100}
    first = (await api_client.post("/v1/jobs", json=body)).json()
    cost = len(body["prompt"]) + 100  # at least: the template's overhead is added
    reading = Reading(jobs=1, tokens=cost, rate=cost / 60, wait=60.0)
    board = app.state.parts.board
    board._verdicts = {"default": Verdict(State(), Pressure(at=time.time(), classes={"standard": reading}))}
    board._admitted.clear()

    job = (await api_client.post("/v1/jobs", json=body)).json()
    polled = (await api_client.get(f"/v1/jobs/{job['id']}")).json()
    listed = {one["id"]: one for one in (await api_client.get("/v1/jobs")).json()["data"]}

    def seconds(one: dict[str, Any]) -> float:
        start = datetime.fromisoformat(one["queue"]["estimated_start_at"])
        return (start - datetime.fromisoformat(one["created_at"])).total_seconds()

    assert seconds(job) == pytest.approx(60, abs=2)
    assert seconds(polled) == pytest.approx(seconds(job), rel=0.3)
    assert seconds(listed[job["id"]]) == pytest.approx(seconds(polled), abs=2)
    assert (polled["queue"]["position"], listed[job["id"]]["queue"]["position"]) == (1, 1)
    assert listed[first["id"]]["queue"]["position"] == 0


async def test_a_ready_answer_is_a_finished_job_from_its_first_moment(
    api_client: httpx.AsyncClient, app: FastAPI
) -> None:
    admission = app.state.parts.admission
    admission._answerers = (Parrot(),)
    board = app.state.parts.board
    board._verdicts = {MODEL: at_level(Level.TEMPLATE)}

    answered = await api_client.post("/v1/jobs", json={"prompt": "How are you?"})
    refused = await api_client.post("/v1/jobs", json={"prompt": "How are you?", "degradation": {"allow": []}})

    job = answered.json()
    assert (answered.status_code, job["status"], job["output"]["text"]) == (200, "completed", "Hello.")
    assert (job["degradation"]["name"], job["degradation"]["reason"]) == ("template", "84 wait")
    assert answered.headers["X-Degradation-Level"] == "2"
    assert (refused.status_code, refused.json()["degradation"]["level"]) == (202, 0)
    kept = (await api_client.get(f"/v1/jobs/{job['id']}")).json()
    assert (kept["status"], kept["degradation"], kept["version"]) == ("completed", job["degradation"], 2)
