"""The console over HTTP: who may sign in, what its cookie is good for, and what it is told."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI
from sqlalchemy import insert

from api.sessions import OWN_HEADER
from core.settings import Settings
from models.batch_tables import Batch, BatchTally
from models.dialect import Database
from models.keys import ADMIN
from models.repositories import access, outcomes
from models.shift_table import WorkerShift
from tests.platform_fixtures import SimulatedWorker, TestTenant, client_of, make_tenant, parsed_events

OWN = {OWN_HEADER: "1"}


@pytest.fixture
def browser(app: FastAPI) -> httpx.AsyncClient:
    """Keeps cookies, and has no key."""
    return client_of(app, {})


async def sign_in(browser: httpx.AsyncClient, key: str) -> httpx.Response:
    return await browser.post("/console/session", json={"key": key}, headers=OWN)


async def test_a_key_of_admin_scope_signs_in_and_out(browser: httpx.AsyncClient, tenant: TestTenant) -> None:
    signed_in = await sign_in(browser, tenant.key)
    seen = await browser.get("/v1/admin/overview", headers=OWN)
    me = (await browser.get("/console/session", headers=OWN)).json()
    await browser.delete("/console/session", headers=OWN)
    after = await browser.get("/v1/admin/overview", headers=OWN)

    cookie = signed_in.headers["set-cookie"]
    assert (signed_in.status_code, seen.status_code, after.status_code) == (204, 200, 401)
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert tenant.key.split("-")[2] not in cookie
    assert (me["tenant_id"], me["models"]) == (tenant.id, ["default"])


async def test_the_cookie_is_only_for_https_where_the_platform_is(
    app: FastAPI, settings: Settings, tenant: TestTenant
) -> None:
    app.state.parts.settings.__dict__["api"] = settings.api.model_copy(
        update={"public_url": "https://p.test"}
    )
    async with client_of(app, {}) as browser:
        signed_in = await sign_in(browser, tenant.key)

    assert "Secure" in signed_in.headers["set-cookie"]


async def test_a_key_without_admin_scope_and_a_wrong_key_do_not_sign_in(
    browser: httpx.AsyncClient, other_tenant: TestTenant
) -> None:
    refused = await sign_in(browser, other_tenant.key)
    unknown = await sign_in(browser, "sk-key_none-0123456789abcdef0123")

    assert (refused.status_code, unknown.status_code) == (403, 401)
    assert "set-cookie" not in refused.headers


@pytest.mark.parametrize(
    "headers",
    [{}, OWN | {"Origin": "http://evil.test"}, {"Origin": "http://penstock.test"}, OWN | {"Origin": "null"}],
)
async def test_another_site_can_use_neither_the_cookie_nor_the_door(
    browser: httpx.AsyncClient, tenant: TestTenant, headers: dict[str, str]
) -> None:
    await sign_in(browser, tenant.key)

    read = await browser.get("/v1/admin/overview", headers=headers)
    written = await browser.post("/v1/jobs", json={"prompt": "x"}, headers=headers)
    door = await browser.post("/console/session", json={"key": tenant.key}, headers=headers)

    assert (read.status_code, written.status_code, door.status_code) == (401, 401, 403)


@pytest.mark.parametrize("origin", ["http://penstock.test", None])
async def test_the_page_itself_may_write(
    browser: httpx.AsyncClient, tenant: TestTenant, origin: str | None
) -> None:
    await sign_in(browser, tenant.key)

    written = await browser.post(
        "/v1/jobs", json={"prompt": "x"}, headers=OWN | ({"Origin": origin} if origin else {})
    )

    assert written.status_code == 202


async def test_a_changed_cookie_and_a_revoked_key_are_no_session(
    browser: httpx.AsyncClient, tenant: TestTenant, database: Database, app: FastAPI
) -> None:
    await sign_in(browser, tenant.key)
    good = browser.cookies["penstock_console"]
    key_id, until, signature = good.split(".")
    browser.cookies.set("penstock_console", f"{key_id}.{int(until) + 1}.{signature}", domain="penstock.test")
    later = await browser.get("/v1/admin/overview", headers=OWN)
    async with database.begin() as connection:
        await access.revoke_key(connection, key_id)
    app.state.parts.keys._known.clear()
    browser.cookies.clear()
    browser.cookies.set("penstock_console", good, domain="penstock.test")
    revoked = await browser.get("/v1/admin/overview", headers=OWN)

    assert (later.status_code, revoked.status_code) == (401, 401)


async def test_a_session_ends(browser: httpx.AsyncClient, tenant: TestTenant, app: FastAPI) -> None:
    parts = app.state.parts
    caller = await parts.keys.verify(f"Bearer {tenant.key}")
    token = await parts.keys.open_session(caller, parts.clock.now() - timedelta(seconds=1))
    browser.cookies.set("penstock_console", token, domain="penstock.test")

    answer = await browser.get("/v1/admin/overview", headers=OWN)

    assert answer.status_code == 401
    assert answer.json()["detail"] == "The session has ended: sign in again."


async def test_the_page_and_its_files_are_strict_about_where_things_come_from(
    browser: httpx.AsyncClient,
) -> None:
    page = await browser.get("/console")
    script = await browser.get("/console/main.js")
    again = await browser.get("/console/main.js", headers={"If-None-Match": script.headers["etag"]})
    missing = await browser.get("/console/..%2Fapp.py")

    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>" not in page.text
    assert "style=" not in page.text
    assert (script.headers["content-type"], again.status_code, missing.status_code) == (
        "text/javascript; charset=utf-8",
        304,
        404,
    )


async def test_the_overview_says_what_waits_runs_and_failed(
    api_client: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    await worker.sign_on()
    jobs = [(await api_client.post("/v1/jobs", json={"prompt": f"p{n}"})).json()["id"] for n in range(3)]
    await worker.run(jobs[0])
    await worker.claim(jobs[1])

    seen = (await api_client.get("/v1/admin/overview")).json()

    [model] = seen["models"]
    queues = {queue["service_class"]: queue for queue in model["queues"]}
    assert (model["name"], model["running"], model["slots"]) == ("default", 1, 1)
    assert queues["standard"]["waiting"] == 1
    assert queues["bulk"]["waiting"] == 0
    assert seen["totals"]["waiting"] == 1
    assert [job["id"] for job in seen["jobs"]["recent"]] == jobs[::-1]
    assert [job["id"] for job in seen["jobs"]["waiting"]] == [jobs[2]]
    assert [job["id"] for job in seen["jobs"]["running"]] == [jobs[1]]
    assert seen["jobs"]["recent"][2]["tokens"] == 5
    assert [one["name"] for one in seen["workers"]] == ["w1"]
    assert seen["tenants"][0]["waiting"] == 1


async def test_a_job_of_another_tenant_says_why_it_waits_and_is_cancelled(
    api_client: httpx.AsyncClient, app: FastAPI, other_tenant: TestTenant
) -> None:
    async with client_of(app, other_tenant.headers) as theirs:
        job_id = (await theirs.post("/v1/jobs", json={"prompt": "a secret"})).json()["id"]
        hidden = await theirs.get(f"/v1/admin/jobs/{job_id}")

    standing = await api_client.get(f"/v1/admin/jobs/{job_id}")
    cancelled = (await api_client.post(f"/v1/admin/jobs/{job_id}/cancel")).json()
    missing = await api_client.get("/v1/admin/jobs/job_none")

    assert standing.json()["waits"]["code"] == "no_worker"
    assert "a secret" not in standing.text
    assert (cancelled["status"], cancelled["waits"]) == ("cancelled", None)
    assert (hidden.status_code, missing.status_code) == (403, 404)


async def test_viewers_share_one_look(app: FastAPI, tenant: TestTenant) -> None:
    looks = 0
    overviews = app.state.parts.overviews
    look = overviews.feed._look

    async def counted() -> bytes:
        nonlocal looks
        looks += 1
        found: bytes = await look()
        return found

    overviews.feed._look = counted
    viewers = [overviews.feed.frames() for _ in range(3)]

    first = await asyncio.gather(*(anext(viewer) for viewer in viewers))
    for viewer in viewers:
        await viewer.aclose()

    assert looks == 1
    assert len({frame.body for frame in first}) == 1
    assert overviews.feed._task is None


async def test_the_stream_begins_with_an_overview_and_ends_with_the_process(
    app: FastAPI, tenant: TestTenant
) -> None:
    feed = app.state.parts.overviews.feed
    take = feed._take

    async def once() -> Any:
        frame = await take()
        asyncio.get_running_loop().call_soon(lambda: ending.append(asyncio.create_task(feed.close())))
        return frame

    ending: list[asyncio.Task[None]] = []
    feed._take = once
    async with client_of(app, tenant.headers) as client:
        answer = await client.get("/v1/admin/overview/events")

    events = list(parsed_events(answer.text))
    assert events[0]["event"] == "overview"
    assert orjson.loads(events[0]["data"])["object"] == "overview"


async def test_a_revoked_key_ends_what_it_watches(
    app: FastAPI, tenant: TestTenant, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.routes.overview._ASK_AGAIN", -1)
    parts = app.state.parts
    take, parts.overviews.feed._every = parts.overviews.feed._take, 0.0

    async def revoked_before_the_second() -> Any:
        frame = await take()
        if parts.overviews.feed._number == 1:
            async with database.begin() as connection:
                await access.revoke_key(connection, tenant.key.split("-")[1])
            parts.keys._known.clear()
        return frame

    parts.overviews.feed._take = revoked_before_the_second
    async with client_of(app, tenant.headers) as client:
        answer = await client.get("/v1/admin/overview/events")

    assert [event["event"] for event in parsed_events(answer.text)] == ["overview", "expired"]


async def test_a_look_that_fails_is_told_to_those_who_watch(app: FastAPI, database: Database) -> None:
    await database.close()
    feed = app.state.parts.overviews.feed

    async def down() -> bytes:
        from core.errors import StoreUnavailable

        raise StoreUnavailable("the database cannot be reached")

    feed._look = down
    frames = feed.frames()
    frame = await anext(frames)
    await frames.aclose()

    assert frame.event().startswith(b"event: trouble\ndata: ")
    assert b"the database cannot be reached" in frame.body


async def test_a_batch_says_how_far_it_is_with_what_ended_since_the_last_sum(
    api_client: httpx.AsyncClient, database: Database, tenant: TestTenant
) -> None:
    now = datetime.now(UTC)
    batch = {
        "id": "batch_1",
        "tenant_id": tenant.id,
        "status": "in_progress",
        "endpoint": "/v1/chat/completions",
        "input_file_id": "file_1",
        "service_class": "bulk",
        "completion_window": "24h",
        "models": ["default"],
        "total": 10,
        "loaded": 8,
        "completed": 3,
        "failed": 1,
        "problems": [],
        "metadata": {},
        "created_at": now,
        "expires_at": now + timedelta(hours=24),
        "fence": 0,
    }
    tallies = [
        {"batch_id": "batch_1", "completed": 2, "failed": 0},
        {"batch_id": "batch_1", "completed": 1, "failed": 1},
    ]
    async with database.begin() as connection:
        await connection.execute(insert(Batch.__table__).values(batch))
        await connection.execute(insert(BatchTally.__table__).values(tallies))

    [seen] = (await api_client.get("/v1/admin/overview")).json()["batches"]

    assert (seen["total"], seen["completed"], seen["failed"]) == (10, 6, 2)


async def test_a_report_says_what_became_of_the_last_hour(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, database: Database
) -> None:
    await worker.sign_on()
    jobs = [(await api_client.post("/v1/jobs", json={"prompt": f"p{n}"})).json()["id"] for n in range(3)]
    await worker.run(jobs[0])
    now = datetime.now(UTC)
    gone = {"name": "w0", "started_at": now - timedelta(hours=1), "ended_at": now - timedelta(minutes=3)}
    async with database.begin() as connection:
        await connection.execute(insert(WorkerShift.__table__).values(models=["default"], **gone))

    found = (await api_client.get("/v1/admin/report?window=15m")).json()
    too_long = await api_client.get("/v1/admin/report?window=8d")
    async with database.read() as connection:
        newest, has_more = await outcomes.submitted_since(
            connection, datetime.now(UTC) - timedelta(hours=1), limit=2
        )

    assert found["total"]["outcomes"] == {"completed": 1, "queued": 2}
    assert found["total"]["tokens"] == {"prompt": 3, "cached": 0, "completion": 2}
    assert (found["is_partial"], [one["model"] for one in found["cost"]]) == (False, ["default"])
    assert found["cost"][0]["worker_hours"] == pytest.approx(0.2, abs=0.02)
    assert too_long.status_code == 422
    assert ([one.id for one in newest], has_more) == ([jobs[2], jobs[1]], True)


async def test_a_key_that_is_only_admin_may_watch(
    app: FastAPI, settings: Settings, database: Database
) -> None:
    operator = await make_tenant(database, settings, scopes=(ADMIN,))
    async with client_of(app, operator.headers) as client:
        answer = await client.get("/v1/admin/overview")

    assert answer.status_code == 200
