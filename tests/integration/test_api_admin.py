"""Timelines, dead letters and held models over HTTP, and the commands that speak to those routes."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from typer.testing import CliRunner

from cli.client import Client
from cli.main import app as command_line
from core.settings import Settings, load_settings
from models.dialect import Database
from queues.relay import Relay
from queues.upkeep import Upkeep
from tests.contracts.stores import LEASES, ago, claim, move_time
from tests.fakes.fake_publisher import FakePublisher
from tests.platform_fixtures import SimulatedWorker, TestTenant, client_of

ASK = {"prompt": "Why is the sky blue?"}
MODEL = "default"


async def submit(api: httpx.AsyncClient, **more: Any) -> str:
    answer = await api.post("/v1/jobs", json={**ASK, **more})
    job_id: str = answer.json()["id"]
    return job_id


async def kill(database: Database, settings: Settings, job_id: str) -> None:
    """Three workers take it and die."""
    upkeep = Upkeep(database, FakePublisher([MODEL]), settings, [MODEL])
    for attempt in range(3):
        await claim(database, (job_id, attempt), worker=f"w{attempt + 1}")
        await move_time(database, LEASES, job_id, expires_at=ago(seconds=1))
        await upkeep.reap()


async def test_a_timeline_names_every_attempt(
    api_client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    job_id = await submit(api_client)
    await kill(database, settings, job_id)

    answer = await api_client.get(f"/v1/jobs/{job_id}/timeline")

    changes = answer.json()["data"]
    assert [(c["status"], c["attempt"], c["worker"], c["reason"]) for c in changes] == [
        ("queued", 0, None, "submitted"),
        ("running", 1, "w1", None),
        ("queued", 1, "w1", "lease_lost"),
        ("running", 2, "w2", None),
        ("queued", 2, "w2", "lease_lost"),
        ("running", 3, "w3", None),
        ("failed", 3, "w3", "attempts_exhausted"),
    ]


async def test_a_dead_letter_is_listed_shown_and_sent_again(
    api_client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    job_id = await submit(api_client, metadata={"mine": "yes"})
    await kill(database, settings, job_id)

    listed = (await api_client.get("/v1/admin/dead_letters")).json()
    shown = (await api_client.get(f"/v1/admin/dead_letters/{job_id}")).json()
    requeued = (await api_client.post(f"/v1/admin/dead_letters/{job_id}/requeue")).json()
    twice = await api_client.post(f"/v1/admin/dead_letters/{job_id}/requeue")
    job = (await api_client.get(f"/v1/jobs/{requeued['requeued_as']}")).json()

    assert [letter["job_id"] for letter in listed["data"]] == [job_id]
    assert (shown["error"]["code"], len(shown["timeline"])) == ("attempts_exhausted", 7)
    assert (job["status"], job["retry_of"], job["metadata"]) == ("queued", job_id, {"mine": "yes"})
    assert twice.status_code == 409
    assert (await api_client.get("/v1/admin/dead_letters")).json()["data"] == []
    assert len((await api_client.get("/v1/admin/dead_letters?settled=true")).json()["data"]) == 1


async def test_a_discarded_letter_leaves_the_list_and_its_job_stays(
    api_client: httpx.AsyncClient, database: Database, settings: Settings
) -> None:
    job_id = await submit(api_client)
    await kill(database, settings, job_id)

    discarded = await api_client.post(f"/v1/admin/dead_letters/{job_id}/discard")

    assert discarded.json()["discarded_at"] is not None
    assert (await api_client.get("/v1/admin/dead_letters")).json()["data"] == []
    assert (await api_client.get(f"/v1/jobs/{job_id}")).json()["status"] == "failed"


async def test_what_is_no_dead_letter_is_not_found(
    api_client: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    job_id = await submit(api_client)
    await worker.run(job_id)

    answers = [
        await api_client.get(f"/v1/admin/dead_letters/{job_id}"),
        await api_client.post(f"/v1/admin/dead_letters/{job_id}/requeue"),
        await api_client.post(f"/v1/admin/dead_letters/{job_id}/discard"),
    ]

    assert [answer.status_code for answer in answers] == [404] * 3


async def test_a_paused_model_takes_jobs_and_releases_none_until_it_is_resumed(
    api_client: httpx.AsyncClient, database: Database, redis: Redis, settings: Settings
) -> None:
    publisher = FakePublisher([MODEL])
    relay = Relay(database, publisher, redis, settings)
    paused = (await api_client.post(f"/v1/admin/models/{MODEL}/pause")).json()
    job_id = await submit(api_client)
    await relay.release()
    while_paused = list(publisher.ids)
    [model] = (await api_client.get("/v1/admin/models")).json()["data"]
    resumed = (await api_client.post(f"/v1/admin/models/{MODEL}/resume")).json()
    await relay.release()

    assert (paused["state"], while_paused) == ("paused", [])
    assert (model["state"], model["queued"], model["running"]) == ("paused", 1, 0)
    assert (resumed["state"], publisher.ids) == ("serving", [job_id])


async def test_a_draining_model_is_drained_when_its_last_job_has_ended(
    api_client: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    job_id = await submit(api_client)
    await worker.claim(job_id)
    before = (await api_client.post(f"/v1/admin/models/{MODEL}/drain")).json()
    await worker.finish(job_id)
    [after] = (await api_client.get("/v1/admin/models")).json()["data"]

    assert (before["state"], before["running"]) == ("draining", 1)
    assert (after["state"], after["running"]) == ("drained", 0)


async def test_an_unknown_model_cannot_be_held(api_client: httpx.AsyncClient) -> None:
    assert (await api_client.post("/v1/admin/models/none/pause")).status_code == 404


# The commands: what they ask of the API, and what they print.

runner = CliRunner()
LETTER = {
    "job_id": "job_1",
    "tenant_id": "acme",
    "model": "default",
    "attempt": 3,
    "died_at": "2026-01-01T00:00:00Z",
    "error": {"code": "attempts_exhausted", "message": "three attempts"},
    "requeued_as": "job_2",
    "discarded_at": None,
    "timeline": [
        {"version": 1, "at": "2026-01-01T00:00:00Z", "status": "queued", "attempt": 0, "worker": None,
         "reason": "submitted"}
    ],
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The requests of the commands; a draining model is drained at the second look."""
    seen: list[tuple[str, str]] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, request.url.path))
        return httpx.Response(200, json=_answer(request, seen))

    settings = load_settings({}, url="http://platform", key="sk-key_x-0123456789abcdef")
    for module in ("dead_letters", "models_admin", "jobs"):
        monkeypatch.setattr(f"cli.{module}._client", lambda: Client(settings, httpx.MockTransport(handle)))
    monkeypatch.setattr("cli.models_admin._LOOK", 0)
    return seen


def _answer(request: httpx.Request, seen: list[tuple[str, str]]) -> dict[str, Any]:
    path = request.url.path
    if "dead_letters" in path:
        return {"data": [LETTER]} if path.endswith("dead_letters") else LETTER
    if path.endswith("timeline"):
        return {"data": LETTER["timeline"]}
    looks = sum(method == "GET" for method, _ in seen)
    model = {"name": "m", "queued": 1, "running": 0, "since": None}
    state = "draining" if looks < 2 else "drained"
    return (
        {"data": [{**model, "state": state}]} if request.method == "GET" else {**model, "state": "draining"}
    )


@pytest.mark.parametrize(
    ("arguments", "printed", "path"),
    [
        (["dead-letters", "list"], "job_1", "/v1/admin/dead_letters"),
        (["dead-letters", "show", "job_1"], "submitted", "/v1/admin/dead_letters/job_1"),
        (["dead-letters", "requeue", "job_1"], "job_2", "/v1/admin/dead_letters/job_1/requeue"),
        (["dead-letters", "discard", "job_1"], "job_1 discarded", "/v1/admin/dead_letters/job_1/discard"),
        (["models", "list"], "draining", "/v1/admin/models"),
        (["models", "pause", "m"], "m draining", "/v1/admin/models/m/pause"),
        (["models", "resume", "m"], "1 queued", "/v1/admin/models/m/resume"),
        (["models", "drain", "m"], "m drained", "/v1/admin/models"),
        (["models", "drain", "m", "--no-wait"], "m draining", "/v1/admin/models/m/drain"),
        (["get", "job_1", "--timeline"], "submitted", "/v1/jobs/job_1/timeline"),
    ],
)
def test_a_command_asks_its_route_and_prints_what_it_says(
    asked: list[tuple[str, str]], arguments: list[str], printed: str, path: str
) -> None:
    result = runner.invoke(command_line, arguments)

    assert result.exit_code == 0, result.output
    assert printed in result.stdout
    assert asked[-1][1] == path


@pytest.mark.parametrize(
    "arguments", [["dead-letters", "list"], ["models", "list"], ["models", "pause", "m"]]
)
def test_a_command_prints_json_where_asked(asked: list[tuple[str, str]], arguments: list[str]) -> None:
    result = runner.invoke(command_line, [*arguments, "--json"])

    assert result.stdout.startswith("{")


async def test_an_operator_keeps_a_tenants_prompts_apart_and_lets_them_share_again(
    api_client: httpx.AsyncClient, other_tenant: TestTenant, worker: SimulatedWorker, app: FastAPI
) -> None:
    path = f"/v1/admin/tenants/{other_tenant.id}/prefix_cache"
    async with client_of(app, other_tenant.headers) as other:
        before = (await api_client.get(path)).json()
        shared = await worker.claim((await other.post("/v1/jobs", json={"prompt": "Hello."})).json()["id"])
        changed = (await api_client.put(path, json={"private": True})).json()
        apart = await worker.claim((await other.post("/v1/jobs", json={"prompt": "Hello."})).json()["id"])

    assert before == {"object": "prefix_cache", "tenant": other_tenant.id, "private": False}
    assert changed == before | {"private": True}
    assert (await api_client.get(path)).json() == changed
    assert (shared.is_private, apart.is_private) == (False, True)


async def test_nobodys_prefix_cache_is_not_found(api_client: httpx.AsyncClient) -> None:
    path = "/v1/admin/tenants/nobody/prefix_cache"

    assert (await api_client.get(path)).status_code == 404
    assert (await api_client.put(path, json={"private": True})).status_code == 404
    assert (await api_client.put(path, json={"private": "yes"})).status_code == 422
