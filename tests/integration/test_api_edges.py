"""What every route has in common: who may see it, what it says when something is down, and health."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI
from fastapi.routing import APIRoute
from redis.asyncio import Redis
from sqlalchemy import text

from api.app import create_app
from core.errors import StoreUnavailable
from core.settings import Settings
from models.catalogue import Catalogue
from models.dialect import Database
from models.repositories import access
from models.repositories.schema import latest_revision
from tests.platform_fixtures import SimulatedWorker, TestTenant, client_of

ASK = {"prompt": "Why is the sky blue?"}
BODIES: dict[str, Any] = {"change_job": {"priority": 1}, "give_feedback": {"score": 1}}


class MovedClock:
    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def monotonic(self) -> float:
        return 1000.0 + self.offset.total_seconds()


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def app(
    settings: Settings, database: Database, redis: Redis, clock: MovedClock
) -> AsyncIterator[FastAPI]:
    made = create_app(settings, database=database, redis=redis, catalogue=Catalogue.bundled(), clock=clock)
    async with LifespanManager(made):
        yield made


def break_database(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("the database cannot be reached")

    monkeypatch.setattr(database, "read", refuse)
    monkeypatch.setattr(database, "begin", refuse)
    monkeypatch.setattr(database, "at_once", refuse)


def job_routes(app: FastAPI) -> list[tuple[str, str, str]]:
    document = app.openapi()
    return [
        (method, path, operation["operationId"])
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if "{job_id}" in path and "/admin/" not in path
    ]


async def test_another_tenants_job_is_not_there_on_any_route(
    app: FastAPI, api_client: httpx.AsyncClient, other_tenant: TestTenant, worker: SimulatedWorker
) -> None:
    job = (await api_client.post("/v1/jobs", json={**ASK, "tags": ["mine"]})).json()
    routes = job_routes(app)
    async with client_of(app, other_tenant.headers) as stranger:
        for state in ("queued", "completed"):
            if state == "completed":
                await worker.run(job["id"])
                await api_client.get(f"/v1/jobs/{job['id']}?wait=10")
            for method, path, operation in routes:
                answer = await stranger.request(
                    method, path.replace("{job_id}", job["id"]), json=BODIES.get(operation)
                )
                assert answer.status_code == 404, (method, path, state)
        listed = await stranger.get("/v1/jobs?tag=mine")

    assert listed.json()["data"] == []
    mine = (await api_client.get(f"/v1/jobs/{job['id']}")).json()
    assert (mine["status"], mine["version"]) == ("completed", 3)
    assert len(routes) == 8


async def test_no_admin_route_serves_a_key_without_that_scope(app: FastAPI, other_tenant: TestTenant) -> None:
    refused = []
    async with client_of(app, other_tenant.headers) as stranger:
        for path, methods in app.openapi()["paths"].items():
            for method in methods if path.startswith("/v1/admin/") else ():
                answer = await stranger.request(method, re.sub(r"\{\w+\}", "some", path))
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)
                refused.append(path)

    assert {path.split("/")[3] for path in refused} >= {"dead_letters", "degradation", "models"}


async def test_no_route_but_health_serves_a_stranger(app: FastAPI) -> None:
    public = {"/health", "/ready"}
    async with client_of(app, {}) as stranger:
        for path, methods in app.openapi()["paths"].items():
            for method in methods:
                answer = await stranger.request(method, path.replace("{job_id}", "job_1"))
                assert (answer.status_code == 401) == (path not in public), (method, path)


async def test_every_route_is_in_the_document(app: FastAPI) -> None:
    declared = {(method, path) for path, methods in app.openapi()["paths"].items() for method in methods}

    found = {
        (method.lower(), route.path)
        for route in app.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    }

    assert found <= declared


@pytest.mark.parametrize("job_id", ["job_%00", "job_nobody", "nonsense", "%F0%9F%92%A9", "job_" + "x" * 500])
async def test_a_strange_id_is_not_found(api_client: httpx.AsyncClient, job_id: str) -> None:
    answer = await api_client.get(f"/v1/jobs/{job_id}")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "status=odd", "tag=%00", "after=%00", "model="]
)
async def test_a_strange_filter_is_named(api_client: httpx.AsyncClient, query: str) -> None:
    answer = await api_client.get(f"/v1/jobs?{query}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == query.split("=", maxsplit=1)[0]


async def test_unknown_paths_and_methods_have_the_same_body(api_client: httpx.AsyncClient) -> None:
    missing = await api_client.get("/v1/nothing")
    wrong = await api_client.put("/v1/jobs")

    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["allow"]


async def test_a_large_body_is_413(api_client: httpx.AsyncClient) -> None:
    answer = await api_client.post("/v1/jobs", content=b"x" * 2_000_000)

    assert answer.status_code == 413
    assert len(answer.content) < 2000


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"deadline": "2020-01-01T00:00:00Z"}, "deadline"),
        ({"not_before": "2999-01-01T00:00:00Z"}, "not_before"),
        ({"model": "gpt-9"}, "model"),
        ({"prompt": "zebra " * 30_000}, "prompt"),
        ({"max_tokens": 100_000}, "max_tokens"),
    ],
)
async def test_what_cannot_run_is_refused_before_it_is_queued(
    api_client: httpx.AsyncClient, fields: dict[str, Any], named: str
) -> None:
    answer = await api_client.post("/v1/jobs", json={**ASK, **fields})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == named
    assert (await api_client.get("/v1/jobs")).json()["data"] == []


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9"])
async def test_a_strange_idempotency_key_is_refused(api_client: httpx.AsyncClient, key: str) -> None:
    answer = await api_client.post(
        "/v1/jobs", json=ASK, headers=[(b"Idempotency-Key", key.encode("latin-1"))]
    )

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


async def test_a_full_outbox_is_503_with_a_time(
    settings: Settings, database: Database, redis: Redis, tenant: TestTenant
) -> None:
    small = settings.model_copy(update={"api": settings.api.model_copy(update={"max_queued": 2})})
    app = create_app(small, database=database, redis=redis, catalogue=Catalogue.bundled())
    async with LifespanManager(app), client_of(app, tenant.headers) as client:
        answers = [await client.post("/v1/jobs", json=ASK) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [202, 202, 503]
    assert answers[2].json()["code"] == "outbox_full"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 120


async def test_a_revoked_key_is_refused_after_the_cache(
    api_client: httpx.AsyncClient, database: Database, clock: MovedClock
) -> None:
    await api_client.get("/v1/jobs")
    async with database.begin() as connection:
        (row,) = await access.keys(connection)
        await access.revoke_key(connection, row.id)

    cached = await api_client.get("/v1/jobs")
    clock.offset += timedelta(seconds=6)
    refused = await api_client.get("/v1/jobs")

    assert (cached.status_code, refused.status_code) == (200, 401)


async def test_without_a_database_finished_jobs_are_served_to_known_keys_for_a_minute(
    api_client: httpx.AsyncClient,
    database: Database,
    worker: SimulatedWorker,
    clock: MovedClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = (await api_client.post("/v1/jobs", json=ASK)).json()
    await worker.run(job["id"])
    await worker.events.flush()  # its hot copy follows the commit
    await api_client.get(f"/v1/jobs/{job['id']}?wait=10")
    break_database(database, monkeypatch)
    clock.offset += timedelta(seconds=30)

    hot = await api_client.get(f"/v1/jobs/{job['id']}")
    cold = await api_client.get("/v1/jobs")
    refused = await api_client.post("/v1/jobs", json=ASK)
    clock.offset += timedelta(seconds=31)
    late = await api_client.get(f"/v1/jobs/{job['id']}")

    assert hot.status_code == 200, hot.text
    assert hot.json()["output"]["text"] == "Hello."
    assert [cold.status_code, refused.status_code, late.status_code] == [503, 503, 503]
    assert refused.headers["retry-after"]


@pytest.mark.parametrize(("revision", "status"), [("of_the_next_release", 200), ("0001", 503)])
async def test_only_an_older_schema_is_not_ready(
    app: FastAPI, worker: SimulatedWorker, database: Database, revision: str, status: int
) -> None:
    """The schema goes first: behind a balancer all of the version before would be taken out at once."""
    await worker.sign_on()
    stamp = text("UPDATE alembic_version SET version_num = :revision")
    async with database.begin() as connection:
        await connection.execute(stamp, {"revision": revision})
    async with client_of(app, {}) as client:
        answer = await client.get("/ready")
    async with database.begin() as connection:
        await connection.execute(stamp, {"revision": latest_revision()})

    assert answer.status_code == status, answer.text


async def test_health_and_readiness(
    app: FastAPI, worker: SimulatedWorker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(app, {}) as client:
        idle = await client.get("/ready")
        await worker.sign_on()
        ready = await client.get("/ready")
        break_database(database, monkeypatch)
        down = await client.get("/ready")
        alive = await client.get("/health")

    assert (idle.status_code, idle.json()["missing"]) == (503, ["No worker is ready."])
    assert ready.status_code == 200
    assert (down.status_code, down.json()["missing"]) == (503, ["The database cannot be reached."])
    assert alive.status_code == 200
