"""Following a job by server-sent events, with Redis and without."""

import asyncio
from typing import Any

import httpx
import orjson
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI

from api.app import create_app
from core.settings import RedisSettings, Settings
from models.catalogue import Catalogue
from models.dialect import Database
from queues.redis import open_redis
from tests.platform_fixtures import SimulatedWorker, TestTenant, client_of, parsed_events

ASK = {"prompt": "Why is the sky blue?"}


async def submitted(client: httpx.AsyncClient) -> str:
    job_id: str = (await client.post("/v1/jobs", json=ASK)).json()["id"]
    return job_id


def kinds(answer: httpx.Response) -> list[str]:
    return [event["event"] for event in parsed_events(answer.text)]


async def test_a_follower_gets_tokens_and_the_end(
    api_client: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    job_id = await submitted(api_client)
    following = asyncio.create_task(api_client.get(f"/v1/jobs/{job_id}/events"))
    await worker.claim(job_id)
    worker.events.token(job_id, attempt=1, index=0, text="Hel")
    worker.events.token(job_id, attempt=1, index=1, text="lo.")
    await worker.finish(job_id)

    async with asyncio.timeout(20):
        answer = await following

    events = list(parsed_events(answer.text))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events[0]["event"] == "status"
    assert "".join(orjson.loads(e["data"])["text"] for e in events if e["event"] == "token") == "Hello."
    assert events[-1]["event"] == "done"
    assert events[-1]["id"]
    assert orjson.loads(events[-1]["data"])["output"]["text"] == "Hello."


async def test_a_follower_goes_on_where_it_was(
    api_client: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    job_id = await submitted(api_client)
    await worker.claim(job_id)
    for attempt in (1, 2, 3):
        worker.events.token(job_id, attempt=attempt, index=0, text=str(attempt))
    await worker.finish(job_id)
    await api_client.get(f"/v1/jobs/{job_id}?wait=10")
    whole = await api_client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "0-0"})
    first = next(parsed_events(whole.text))

    rest = await api_client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": first["id"]})

    assert kinds(whole) == ["token", "token", "token", "done"]
    assert list(parsed_events(rest.text)) == list(parsed_events(whole.text))[1:]


async def test_a_finished_job_is_told_from_the_truth(
    api_client: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    job_id = await submitted(api_client)
    await worker.run(job_id, tell=False)

    answer = await api_client.get(f"/v1/jobs/{job_id}/events")

    assert kinds(answer) == ["status", "done"]


async def test_an_expired_stream_still_ends(api_client: httpx.AsyncClient, worker: SimulatedWorker) -> None:
    job_id = await submitted(api_client)
    await worker.run(job_id, tell=False)

    answer = await api_client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "5-0"})

    assert kinds(answer) == ["done"]


async def test_erased_tokens_are_not_told_again(
    api_client: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    job_id = await submitted(api_client)
    await worker.claim(job_id)
    worker.events.token(job_id, attempt=1, index=0, text="secret")
    await worker.finish(job_id, text="secret")
    await api_client.get(f"/v1/jobs/{job_id}?wait=10")
    await api_client.delete(f"/v1/jobs/{job_id}")

    answer = await api_client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "0-0"})

    assert "secret" not in answer.text
    assert kinds(answer) == ["done"]


async def test_a_cancelled_job_ends_its_followers(api_client: httpx.AsyncClient) -> None:
    job_id = await submitted(api_client)
    following = asyncio.create_task(api_client.get(f"/v1/jobs/{job_id}/events"))
    await api_client.post(f"/v1/jobs/{job_id}/cancel")

    async with asyncio.timeout(10):
        answer = await following

    assert kinds(answer)[-1] == "done"


class TestWithoutRedis:
    @pytest.fixture
    async def app(self, settings: Settings, database: Database) -> Any:
        nobody = open_redis(RedisSettings(url="redis://127.0.0.1:1/0"), settings.broker.namespace)
        made = create_app(settings, database=database, redis=nobody, catalogue=Catalogue.bundled())
        async with LifespanManager(made):
            yield made
        await nobody.aclose(close_connection_pool=True)

    async def test_a_job_is_accepted_polled_and_followed(
        self, app: FastAPI, tenant: TestTenant, worker: SimulatedWorker
    ) -> None:
        async with client_of(app, tenant.headers) as client:
            job_id = await submitted(client)
            following = asyncio.create_task(client.get(f"/v1/jobs/{job_id}/events"))
            polling = asyncio.create_task(client.get(f"/v1/jobs/{job_id}?wait=20"))
            await worker.run(job_id, tell=False)
            async with asyncio.timeout(10):
                followed, polled = await following, await polling
            erased = await client.delete(f"/v1/jobs/{job_id}")

        assert polled.json()["status"] == "completed"
        assert kinds(followed)[-1] == "done"
        # The copy in Redis, if there is one, could not be erased.
        assert erased.status_code == 503


async def test_draining_ends_followers_and_long_polls(app: FastAPI, api_client: httpx.AsyncClient) -> None:
    job_id = await submitted(api_client)
    following = asyncio.create_task(api_client.get(f"/v1/jobs/{job_id}/events"))
    polling = asyncio.create_task(api_client.get(f"/v1/jobs/{job_id}?wait=60"))
    await api_client.get(f"/v1/jobs/{job_id}")

    await app.state.parts.reader.drain()

    async with asyncio.timeout(10):
        followed, polled = await following, await polling
    assert kinds(followed) == ["status"]
    assert polled.json()["status"] == "queued"
