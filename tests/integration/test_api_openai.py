import asyncio
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest

from core.overload_settings import InteractiveSettings
from core.settings import Settings
from models.dialect import Database
from models.lifecycle import Status
from models.repositories import jobs
from tests.platform_fixtures import SimulatedWorker, TestTenant

HI = {"model": "default", "messages": [{"role": "user", "content": "Hi."}]}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    quick = InteractiveSettings(premium=timedelta(seconds=20), keep_alive=timedelta(milliseconds=200))
    overload = settings.overload.model_copy(update={"interactive": quick})
    return settings.model_copy(update={"overload": overload})


async def queued_job(database: Database, tenant: TestTenant) -> str:
    """The job that a call has made meanwhile."""
    while True:
        async with database.read() as connection:
            views, _ = await jobs.page(connection, tenant.id, jobs.Filter(), limit=1)
        if views:
            return views[0].id
        await asyncio.sleep(0)


def chunks(body: str) -> list[dict[str, Any]]:
    lines = [line[6:] for line in body.split("\n") if line.startswith("data: ") and line != "data: [DONE]"]
    return [orjson.loads(line) for line in lines]


async def test_a_chat_is_answered(
    api_client: httpx.AsyncClient, database: Database, tenant: TestTenant, worker: SimulatedWorker
) -> None:
    call = asyncio.create_task(api_client.post("/v1/chat/completions", json=HI))
    await worker.run(await queued_job(database, tenant))
    answer = await call

    document = answer.json()
    assert answer.status_code == 200
    assert document["object"] == "chat.completion"
    assert document["choices"][0]["message"]["content"] == "Hello."
    assert document["usage"]["total_tokens"] == 5
    assert answer.headers["x-job-id"] == document["id"]
    assert document["degradation"]["level"] == 0


async def test_a_completion_is_answered(
    api_client: httpx.AsyncClient, database: Database, tenant: TestTenant, worker: SimulatedWorker
) -> None:
    call = asyncio.create_task(api_client.post("/v1/completions", json={"prompt": "Hi."}))
    await worker.run(await queued_job(database, tenant))

    assert (await call).json()["choices"][0]["text"] == "Hello."


async def test_a_stream_begins_with_the_role_and_ends_with_usage(
    api_client: httpx.AsyncClient, database: Database, tenant: TestTenant, worker: SimulatedWorker
) -> None:
    asked = {**HI, "stream": True, "stream_options": {"include_usage": True}}
    call = asyncio.create_task(api_client.post("/v1/chat/completions", json=asked))
    job_id = await queued_job(database, tenant)
    await worker.claim(job_id)
    worker.events.token(job_id, attempt=1, index=0, text="Hel")
    await worker.finish(job_id)
    body = (await call).text

    found = chunks(body)
    deltas = [chunk["choices"][0]["delta"] for chunk in found if chunk["choices"]]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content") or "" for delta in deltas) == "Hello."
    assert found[-1]["usage"]["total_tokens"] == 5
    assert found[-2]["choices"][0]["finish_reason"] == "stop"
    assert body.endswith("data: [DONE]\n\n")


async def test_a_lost_worker_ends_a_stream_that_has_content(
    api_client: httpx.AsyncClient, database: Database, tenant: TestTenant, worker: SimulatedWorker
) -> None:
    call = asyncio.create_task(api_client.post("/v1/chat/completions", json={**HI, "stream": True}))
    job_id = await queued_job(database, tenant)
    await worker.claim(job_id)
    worker.events.token(job_id, attempt=1, index=0, text="Hel")
    await worker.events.flush()
    worker.events.emit(job_id, "reset", {"attempt": 2})
    body = (await call).text

    assert chunks(body)[-1]["error"]["code"] == "worker_lost"
    assert "[DONE]" not in body


async def test_a_job_that_does_not_start_is_a_queue_timeout(
    api_client: httpx.AsyncClient, database: Database, tenant: TestTenant
) -> None:
    answer = await api_client.post("/v1/chat/completions", json={**HI, "max_wait_ms": 50})

    assert answer.status_code == 429
    assert answer.json()["error"]["code"] == "queue_timeout"
    assert int(answer.headers["retry-after"]) >= 1
    async with database.read() as connection:
        view = await jobs.read(connection, tenant.id, await queued_job(database, tenant))
    assert view is not None
    assert view.status is Status.CANCELLED


async def test_the_same_idempotency_key_is_one_job(
    api_client: httpx.AsyncClient, database: Database, tenant: TestTenant, worker: SimulatedWorker
) -> None:
    headers = {"Idempotency-Key": "k"}
    call = asyncio.create_task(api_client.post("/v1/chat/completions", json=HI, headers=headers))
    await worker.run(await queued_job(database, tenant))
    first = await call
    again = await api_client.post("/v1/chat/completions", json=HI, headers=headers)

    assert again.json()["id"] == first.json()["id"]
    assert again.headers["idempotency-replayed"] == "true"


async def test_an_error_is_openais(api_client: httpx.AsyncClient) -> None:
    answer = await api_client.post("/v1/chat/completions", json={**HI, "n": 2})

    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]["param"] == "n"


async def test_models_are_listed(api_client: httpx.AsyncClient) -> None:
    listed = (await api_client.get("/v1/models")).json()["data"]

    assert [model["id"] for model in listed] == ["default"]
    assert (await api_client.get("/v1/models/default")).json() == listed[0]
    assert (await api_client.get("/v1/models/none")).status_code == 404
