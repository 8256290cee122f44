"""The jobs routes, from submission to erasure."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.schemas.job_read import JobPage, JobRead
from core.settings import Settings
from models.dialect import Database
from models.service_class import ServiceClass
from tests.platform_fixtures import SimulatedWorker, TestTenant, client_of, make_tenant

ASK = {"prompt": "Why is the sky blue?", "max_tokens": 16}


async def submitted(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/v1/jobs", json={**ASK, **fields})
    assert answer.status_code == 202, answer.text
    document: dict[str, Any] = answer.json()
    return document


async def test_a_submitted_job_is_queued_and_says_where_it_is(api_client: httpx.AsyncClient) -> None:
    answer = await api_client.post("/v1/jobs", json={**ASK, "tags": ["a"], "metadata": {"k": "v"}})

    job = answer.json()
    assert answer.status_code == 202
    assert job["status"] == "queued"
    assert answer.headers["location"] == job["urls"]["self"]
    assert answer.headers["x-job-id"] == job["id"]
    assert int(answer.headers["retry-after"]) >= 1
    JobRead.model_validate_json(answer.content)
    polled = await api_client.get(f"/v1/jobs/{job['id']}")
    expected = {**job, "queue": {"position": 0, "estimated_start_at": None}}
    assert polled.json() == expected


async def test_a_finished_job_has_its_answer(api_client: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    job = await submitted(api_client)
    await worker.run(job["id"], text="Because.")

    answer = await api_client.get(f"/v1/jobs/{job['id']}?wait=5")

    assert answer.json()["status"] == "completed"
    assert answer.json()["output"]["text"] == "Because."
    JobRead.model_validate_json(answer.content)


async def test_an_etag_saves_the_body(api_client: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    job = await submitted(api_client)
    first = await api_client.get(f"/v1/jobs/{job['id']}")
    same = {"If-None-Match": first.headers["etag"]}

    unchanged = await api_client.get(f"/v1/jobs/{job['id']}", headers=same)
    await worker.claim(job["id"])
    changed = await api_client.get(f"/v1/jobs/{job['id']}", headers=same)

    assert unchanged.status_code == 304
    assert changed.status_code == 200


async def test_the_same_key_and_body_is_one_job(api_client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "order-7"}

    answers = await asyncio.gather(*(api_client.post("/v1/jobs", json=ASK, headers=key) for _ in range(8)))

    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    other = await api_client.post("/v1/jobs", json={"prompt": "Another."}, headers=key)
    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_key_reused"


async def test_a_replay_of_a_finished_job_is_200(
    api_client: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    key = {"Idempotency-Key": "order-8"}
    job = (await api_client.post("/v1/jobs", json=ASK, headers=key)).json()
    await worker.run(job["id"])

    replay = await api_client.post("/v1/jobs", json=ASK, headers=key)

    assert replay.status_code == 200
    assert replay.headers["idempotency-replayed"] == "true"
    assert replay.json()["output"]["text"] == "Hello."


async def test_two_tenants_may_use_one_key(
    app: FastAPI, api_client: httpx.AsyncClient, other_tenant: TestTenant
) -> None:
    key = {"Idempotency-Key": "order-9"}
    mine = await api_client.post("/v1/jobs", json=ASK, headers=key)

    async with client_of(app, other_tenant.headers) as client:
        theirs = await client.post("/v1/jobs", json=ASK, headers=key)

    assert theirs.status_code == 202
    assert theirs.json()["id"] != mine.json()["id"]


async def test_a_retry_without_a_key_finds_its_job(api_client: httpx.AsyncClient) -> None:
    job = await submitted(api_client)

    again = await api_client.post("/v1/jobs", json=ASK, headers={"x-stainless-retry-count": "1"})

    assert again.json()["id"] == job["id"]
    assert again.headers["idempotency-replayed"] == "true"


async def test_prefer_wait_answers_with_the_finished_job(
    api_client: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    key = {"Prefer": "wait=30", "Idempotency-Key": "w"}
    waiting = asyncio.create_task(api_client.post("/v1/jobs", json=ASK, headers=key))
    page = (await api_client.get("/v1/jobs")).json()
    while not page["data"]:
        page = (await api_client.get("/v1/jobs")).json()
    await worker.run(page["data"][0]["id"])

    answer = await waiting

    assert answer.status_code == 200
    assert answer.headers["preference-applied"] == "wait=30"


async def test_a_long_poll_ends_with_the_job(api_client: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    job = await submitted(api_client)
    polling = asyncio.create_task(api_client.get(f"/v1/jobs/{job['id']}?wait=60"))
    await worker.run(job["id"])

    async with asyncio.timeout(10):
        answer = await polling

    assert answer.json()["status"] == "completed"


async def test_a_queued_job_is_cancelled_at_once_and_again(api_client: httpx.AsyncClient) -> None:
    job = await submitted(api_client)

    first = await api_client.post(f"/v1/jobs/{job['id']}/cancel")
    second = await api_client.post(f"/v1/jobs/{job['id']}/cancel")

    assert first.json()["status"] == second.json()["status"] == "cancelled"


async def test_a_running_job_is_asked_to_stop(api_client: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    job = await submitted(api_client)
    await worker.claim(job["id"])

    answer = await api_client.post(f"/v1/jobs/{job['id']}/cancel")

    assert answer.status_code == 200
    assert answer.json()["status"] == "cancelling"


async def test_many_jobs_are_cancelled_at_once(
    api_client: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    waiting, running, over = [(await submitted(api_client))["id"] for _ in range(3)]
    await worker.claim(running)
    await worker.run(over)
    ids = [running, "job_unknown", over, waiting, waiting]

    answer = await api_client.post("/v1/jobs/bulk/cancel", json={"ids": ids})
    nothing = await api_client.post("/v1/jobs/bulk/cancel", json={"ids": ["job_1\u0000"]})

    told = answer.json()["data"]
    assert [(one["index"], one["status"]) for one in told] == [
        (0, 202),
        (1, 404),
        (2, 200),
        (3, 200),
        (4, 200),
    ]
    states = [one["job"] and one["job"]["status"] for one in told]
    assert states == ["cancelling", None, "completed", "cancelled", "cancelled"]
    assert told[1]["error"]["code"] == "not_found"
    assert nothing.status_code == 422
    assert nothing.json()["error"]["param"] == "ids.0"
    job = (await api_client.get(f"/v1/jobs/{waiting}")).json()
    assert (job["status"], job["output"]) == ("cancelled", None)


async def test_a_finished_job_is_retried_as_a_new_one(
    api_client: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    job = await submitted(api_client, result_ttl="2h", stop="x", tags=["t"], priority=7)
    early = await api_client.post(f"/v1/jobs/{job['id']}/retry")
    await worker.run(job["id"])

    answer = await api_client.post(f"/v1/jobs/{job['id']}/retry")

    assert early.status_code == 409
    assert early.headers["retry-after"] == "1"
    assert answer.status_code == 202
    again = answer.json()
    assert (again["retry_of"], again["priority"], again["tags"]) == (job["id"], 7, ["t"])
    claim = await worker.claim(again["id"])
    assert claim.request == {"prompt": ASK["prompt"], "max_tokens": 16, "result_ttl": "2h", "stop": ["x"]}


async def test_a_queued_job_can_be_changed(api_client: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    job = await submitted(api_client)

    changed = await api_client.patch(f"/v1/jobs/{job['id']}", json={"metadata": {"a": "b"}, "priority": 9})
    nothing = await api_client.patch(f"/v1/jobs/{job['id']}", json={})
    late = await api_client.patch(f"/v1/jobs/{job['id']}", json={"deadline": "2020-01-01T00:00:00Z"})

    assert (changed.json()["priority"], changed.json()["metadata"]) == (9, {"a": "b"})
    assert changed.json()["version"] > job["version"]
    assert nothing.status_code == late.status_code == 422
    await api_client.post(f"/v1/jobs/{job['id']}/cancel")
    refused = await api_client.patch(f"/v1/jobs/{job['id']}", json={"priority": 1})
    assert refused.status_code == 409


async def test_an_erased_job_is_a_tombstone(api_client: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    job = await submitted(api_client, metadata={"secret": "x"})
    early = await api_client.delete(f"/v1/jobs/{job['id']}")
    await worker.run(job["id"])
    await api_client.get(f"/v1/jobs/{job['id']}?wait=5")

    erased = await api_client.delete(f"/v1/jobs/{job['id']}")

    assert (early.status_code, erased.status_code) == (409, 204)
    tombstone = (await api_client.get(f"/v1/jobs/{job['id']}")).json()
    assert (tombstone["status"], tombstone["output"], tombstone["metadata"]) == ("completed", None, {})
    assert tombstone["erased_at"]
    retried = await api_client.post(f"/v1/jobs/{job['id']}/retry")
    assert retried.status_code == 409
    assert "retry-after" not in retried.headers
    assert (await api_client.delete(f"/v1/jobs/{job['id']}")).status_code == 204


async def test_the_list_pages_and_filters(api_client: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    made = [await submitted(api_client, tags=["odd"] if n % 2 else []) for n in range(5)]
    await worker.run(made[0]["id"])

    first = await api_client.get("/v1/jobs?limit=3")
    rest = await api_client.get(f"/v1/jobs?limit=3&after={first.json()['last_id']}")
    tagged = await api_client.get("/v1/jobs?tag=odd")
    done = await api_client.get("/v1/jobs?status=completed&model=default&service_class=standard")

    JobPage.model_validate_json(first.content)
    ids = [job["id"] for answer in (first, rest) for job in answer.json()["data"]]
    assert ids == [job["id"] for job in reversed(made)]
    assert (first.json()["has_more"], rest.json()["has_more"]) == (True, False)
    assert [job["id"] for job in tagged.json()["data"]] == [made[3]["id"], made[1]["id"]]
    assert [job["id"] for job in done.json()["data"]] == [made[0]["id"]]


async def test_feedback_needs_a_finished_job(api_client: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    job = await submitted(api_client)
    early = await api_client.post(f"/v1/jobs/{job['id']}/feedback", json={"score": 1})
    await worker.run(job["id"])

    given = await api_client.post(f"/v1/jobs/{job['id']}/feedback", json={"score": -1, "comment": "no"})
    wrong = await api_client.post(f"/v1/jobs/{job['id']}/feedback", json={"score": 0})

    assert [early.status_code, given.status_code, wrong.status_code] == [409, 204, 422]


async def test_every_item_of_a_bulk_has_its_own_outcome(api_client: httpx.AsyncClient) -> None:
    items = [ASK, {"prompt": ""}, {**ASK, "colour": "red"}, {"prompt": "again"}]
    key = {"Idempotency-Key": "bulk"}

    answer = await api_client.post("/v1/jobs/bulk", json={"jobs": items}, headers=key)
    replay = await api_client.post("/v1/jobs/bulk", json={"jobs": items}, headers=key)

    outcomes = answer.json()["data"]
    assert [outcome["status"] for outcome in outcomes] == [202, 422, 422, 202]
    assert [outcome["index"] for outcome in outcomes] == [0, 1, 2, 3]
    assert outcomes[2]["error"]["errors"][0]["field"] == "colour"
    assert replay.json()["data"][3]["job"]["id"] == outcomes[3]["job"]["id"]


async def test_a_thousand_jobs_go_in_at_once(api_client: httpx.AsyncClient) -> None:
    answer = await api_client.post("/v1/jobs/bulk", json={"jobs": [ASK] * 1000})
    more = await api_client.post("/v1/jobs/bulk", json={"jobs": [ASK] * 1001})

    assert {outcome["status"] for outcome in answer.json()["data"]} == {202}
    assert more.status_code == 422


async def test_a_key_cannot_rise_above_its_class(
    app: FastAPI, database: Database, settings: Settings
) -> None:
    tenant = await make_tenant(database, settings, max_class=ServiceClass.BULK)

    async with client_of(app, tenant.headers) as client:
        job = await submitted(client, service_class="premium")

    assert job["service_class"] == "bulk"


async def test_a_key_without_the_scope_is_refused(
    app: FastAPI, database: Database, settings: Settings
) -> None:
    tenant = await make_tenant(database, settings, scopes=("admin",))

    async with client_of(app, tenant.headers) as client:
        answer = await client.post("/v1/jobs", json=ASK)

    assert answer.status_code == 403


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer sk-nobody-0123456789abcdef"}, {"Authorization": "Basic x"}]
)
async def test_a_stranger_is_turned_away(app: FastAPI, headers: dict[str, str]) -> None:
    async with client_of(app, headers) as client:
        answer = await client.post("/v1/jobs", json=ASK)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
