"""OpenAI's dialect where a call does not end plainly: too late, given up, in silence, with more than text."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import httpx2
import openai
import orjson
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI
from redis.asyncio import Redis
from sqlalchemy import update

from api.app import create_app
from core.overload_settings import InteractiveSettings
from core.settings import Settings
from models.catalogue import Catalogue
from models.dialect import Database
from models.lifecycle import Status
from models.repositories import jobs
from models.tables import Job, Outbox
from models.views import JobView
from tests.platform_fixtures import SimulatedWorker, TestTenant
from tests.raw_call import RawCall

CHAT = "/v1/chat/completions"
HI: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "Hi."}]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
LOGPROBS = [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    quick = InteractiveSettings(
        premium=timedelta(seconds=20), keep_alive=timedelta(milliseconds=50), wait=timedelta(seconds=20)
    )
    return with_interactive(settings, quick)


def with_interactive(settings: Settings, interactive: InteractiveSettings) -> Settings:
    overload = settings.overload.model_copy(update={"interactive": interactive})
    return settings.model_copy(update={"overload": overload})


async def all_jobs(database: Database, tenant: TestTenant) -> list[JobView]:
    async with database.read() as connection:
        views, _ = await jobs.page(connection, tenant.id, jobs.Filter(), limit=10)
    return list(views)


async def queued_job(database: Database, tenant: TestTenant, *, other_than: str = "") -> str:
    """The job that a call has made meanwhile."""
    while True:
        views = await all_jobs(database, tenant)
        if views and views[0].id != other_than:
            return views[0].id
        await asyncio.sleep(0)


async def both_wait(app: FastAPI, job_id: str) -> None:
    """Returns when two calls wait for the job."""
    while True:
        if app.state.parts.watchers._waiting[job_id] == 2:
            return
        await asyncio.sleep(0)


def chunks(text: str) -> list[dict[str, Any]]:
    lines = [line[6:] for line in text.split("\n") if line.startswith("data: ") and line != "data: [DONE]"]
    return [orjson.loads(line) for line in lines]


class TestALongAnswer:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        impatient = InteractiveSettings(
            premium=timedelta(seconds=20),
            wait=timedelta(milliseconds=300),
            keep_alive=timedelta(milliseconds=50),
        )
        return with_interactive(settings, impatient)

    @pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
    async def test_it_is_a_504_that_says_not_to_ask_again_and_its_job_runs_on(
        self,
        api_client: httpx.AsyncClient,
        database: Database,
        tenant: TestTenant,
        worker: SimulatedWorker,
        path: str,
    ) -> None:
        asked = HI if path == CHAT else {"prompt": "Hi."}
        call = asyncio.create_task(api_client.post(path, json=asked))
        job_id = await queued_job(database, tenant)
        await worker.claim(job_id)
        answer = await call

        assert answer.status_code == 504
        assert answer.json()["error"]["code"] == "still_running"
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["x-job-id"] == job_id
        assert [view.status for view in await all_jobs(database, tenant)] == [Status.RUNNING]
        await worker.finish(job_id)
        later = (await api_client.get(f"/v1/jobs/{job_id}")).json()
        assert later["output"]["text"] == "Hello."

    async def test_a_stream_ends_with_the_error_and_its_job_runs_on(
        self, app: FastAPI, database: Database, tenant: TestTenant, worker: SimulatedWorker
    ) -> None:
        call = RawCall(app, CHAT, tenant.headers, json={**HI, "stream": True})
        job_id = await queued_job(database, tenant)
        await worker.claim(job_id)
        worker.events.token(job_id, attempt=1, index=0, text="Hel")
        await call.until('"Hel"')
        await call.ended()

        assert chunks(call.text)[-1]["error"]["code"] == "still_running"
        assert "[DONE]" not in call.text
        assert [view.status for view in await all_jobs(database, tenant)] == [Status.RUNNING]

    async def test_the_official_client_does_not_ask_again(
        self, app: FastAPI, database: Database, tenant: TestTenant, worker: SimulatedWorker
    ) -> None:
        transport = httpx2.ASGITransport(app=app)
        async with openai.AsyncOpenAI(
            base_url="http://penstock.test/v1",
            api_key=tenant.key,
            max_retries=3,
            http_client=httpx2.AsyncClient(transport=transport),
        ) as client:
            call = asyncio.create_task(client.chat.completions.create(**HI))
            await worker.claim(await queued_job(database, tenant))
            with pytest.raises(openai.InternalServerError) as error:
                await call

        assert error.value.status_code == 504
        assert error.value.code == "still_running"
        assert len(await all_jobs(database, tenant)) == 1


class LosesTheFirstAnswer(httpx2.AsyncBaseTransport):
    """A network on which the first request arrives, and its answer does not."""

    def __init__(self, app: FastAPI) -> None:
        self._inner = httpx2.ASGITransport(app=app)
        self.counts: list[str | None] = []
        self.lost: asyncio.Task[httpx2.Response] | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.counts.append(request.headers.get("x-stainless-retry-count"))
        if self.lost is not None:
            return await self._inner.handle_async_request(request)
        self.lost = asyncio.create_task(self._inner.handle_async_request(request))
        raise httpx2.ReadTimeout("lost", request=request)


async def test_the_official_clients_own_retry_gets_the_answer_of_the_job_that_it_made(
    app: FastAPI, database: Database, tenant: TestTenant, worker: SimulatedWorker
) -> None:
    network = LosesTheFirstAnswer(app)
    async with openai.AsyncOpenAI(
        base_url="http://penstock.test/v1",
        api_key=tenant.key,
        http_client=httpx2.AsyncClient(transport=network),
    ) as client:
        call = asyncio.create_task(client.chat.completions.create(**HI))
        job_id = await queued_job(database, tenant)
        await both_wait(app, job_id)
        await worker.run(job_id)
        answer = await call

    assert answer.choices[0].message.content == "Hello."
    assert answer.id == job_id
    assert network.counts == ["0", "1"]
    assert len(await all_jobs(database, tenant)) == 1
    assert network.lost is not None
    assert (await network.lost).status_code == 200


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("claimed", [False, True], ids=["queued", "running"])
async def test_a_client_that_goes_takes_its_job_along(
    app: FastAPI,
    database: Database,
    tenant: TestTenant,
    worker: SimulatedWorker,
    *,
    stream: bool,
    claimed: bool,
) -> None:
    call = RawCall(app, CHAT, tenant.headers, json={**HI, "stream": stream})
    job_id = await queued_job(database, tenant)
    if claimed:
        await worker.claim(job_id)
    if stream:
        await call.until(": keep-alive")
    await call.leave()

    ends = {True: Status.CANCELLING, False: Status.CANCELLED}
    assert [view.status for view in await all_jobs(database, tenant)] == [ends[claimed]]


@pytest.mark.parametrize("leaves", ["the first", "the second"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_job_with_two_callers_ends_with_the_last(
    app: FastAPI,
    database: Database,
    tenant: TestTenant,
    worker: SimulatedWorker,
    *,
    leaves: str,
    stream: bool,
) -> None:
    headers = {**tenant.headers, "Idempotency-Key": "k"}
    first = RawCall(app, CHAT, headers, json={**HI, "stream": stream})
    job_id = await queued_job(database, tenant)
    second = RawCall(app, CHAT, headers, json={**HI, "stream": True})
    await second.until(": keep-alive")
    goes, stays = (first, second) if leaves == "the first" else (second, first)
    await goes.leave()
    await worker.run(job_id)
    await stays.ended()

    assert stays.status == 200
    assert "Hello." in stays.text


async def test_a_job_that_both_its_callers_left_is_cancelled(
    app: FastAPI, database: Database, tenant: TestTenant
) -> None:
    headers = {**tenant.headers, "Idempotency-Key": "k"}
    first = RawCall(app, CHAT, headers, json={**HI, "stream": True})
    await queued_job(database, tenant)
    second = RawCall(app, CHAT, headers, json={**HI, "stream": True})
    await second.until(": keep-alive")
    await first.leave()
    await second.leave()

    assert [view.status for view in await all_jobs(database, tenant)] == [Status.CANCELLED]


@pytest.mark.parametrize("claimed", [False, True], ids=["queued", "running"])
async def test_the_key_of_a_call_that_its_client_left_is_good_for_another_job(
    app: FastAPI, database: Database, tenant: TestTenant, worker: SimulatedWorker, *, claimed: bool
) -> None:
    headers = {**tenant.headers, "Idempotency-Key": "k"}
    first = RawCall(app, CHAT, headers, json=HI)
    left = await queued_job(database, tenant)
    if claimed:
        await worker.claim(left)
    await first.leave()
    second = RawCall(app, CHAT, headers, json=HI)
    job_id = await queued_job(database, tenant, other_than=left)
    await worker.run(job_id)
    await second.ended()

    assert second.status == 200
    assert "idempotency-replayed" not in second.headers
    assert orjson.loads(second.text)["id"] == job_id


async def test_a_job_that_was_done_when_its_client_left_answers_the_next_call_under_its_key(
    app: FastAPI, database: Database, tenant: TestTenant, worker: SimulatedWorker
) -> None:
    headers = {**tenant.headers, "Idempotency-Key": "k"}
    first = RawCall(app, CHAT, headers, json={**HI, "stream": True})
    job_id = await queued_job(database, tenant)
    await first.until(": keep-alive")
    await worker.run(job_id, tell=False)
    await first.leave()
    second = RawCall(app, CHAT, headers, json=HI)
    await second.ended()

    assert second.headers["idempotency-replayed"] == "true"
    assert orjson.loads(second.text)["id"] == job_id


async def test_whoever_was_told_to_come_again_comes_with_another_job_under_the_same_key(
    app: FastAPI, database: Database, tenant: TestTenant, worker: SimulatedWorker
) -> None:
    headers = {**tenant.headers, "Idempotency-Key": "k"}
    first = RawCall(app, CHAT, headers, json={**HI, "stream": True})
    late = await queued_job(database, tenant)
    await first.until(": keep-alive")
    async with database.begin() as connection:
        past = datetime.now(UTC) - timedelta(seconds=1)
        await connection.execute(update(Job).where(Job.id == late).values(queue_deadline=past))
        await connection.execute(update(Outbox).where(Outbox.job_id == late).values(expires_at=past))
        await jobs.expire(connection, keep=timedelta(days=1), limit=10)
    await first.ended()
    second = RawCall(app, CHAT, headers, json=HI)
    job_id = await queued_job(database, tenant, other_than=late)
    await worker.run(job_id)
    await second.ended()

    assert chunks(first.text)[-1]["error"]["code"] == "queue_timeout"
    assert second.status == 200
    assert orjson.loads(second.text)["id"] == job_id


async def test_a_queued_stream_is_kept_alive_by_comments(
    app: FastAPI, database: Database, tenant: TestTenant, worker: SimulatedWorker
) -> None:
    call = RawCall(app, CHAT, tenant.headers, json={**HI, "stream": True})
    job_id = await queued_job(database, tenant)
    await call.until(": keep-alive\n\n: keep-alive\n\n")
    queued = await all_jobs(database, tenant)
    await worker.run(job_id)
    await call.ended()

    assert [view.status for view in queued] == [Status.QUEUED]
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks(call.text)) == "Hello."
    assert call.text.endswith("data: [DONE]\n\n")


async def test_log_probabilities_have_each_dialects_form(
    api_client: httpx.AsyncClient, database: Database, tenant: TestTenant, worker: SimulatedWorker
) -> None:
    asked = {**HI, "logprobs": True, "top_logprobs": 1}
    chat = asyncio.create_task(api_client.post(CHAT, json=asked))
    job_id = await queued_job(database, tenant)
    claim = await worker.claim(job_id)
    await worker.finish(job_id, logprobs=LOGPROBS)
    answer = (await chat).json()
    asked = {"prompt": "Hi.", "logprobs": 1}
    completion = asyncio.create_task(api_client.post("/v1/completions", json=asked))
    await worker.run(await queued_job(database, tenant, other_than=job_id), logprobs=LOGPROBS)
    older = (await completion).json()

    assert claim.request["logprobs"] == 1
    assert answer["choices"][0]["logprobs"] == {"content": LOGPROBS, "refusal": None}
    assert older["choices"][0]["logprobs"] == {
        "tokens": ["Hi"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{}],
        "text_offset": [0],
    }


class TestTools:
    @pytest.fixture
    async def app(self, settings: Settings, database: Database, redis: Redis) -> AsyncIterator[FastAPI]:
        bundled = Catalogue.bundled()
        models = tuple(model.model_copy(update={"tools": True}) for model in bundled.models)
        catalogue = bundled.model_copy(update={"models": models})
        made = create_app(settings, database=database, redis=redis, catalogue=catalogue)
        async with LifespanManager(made):
            yield made

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    async def test_they_reach_the_worker_and_its_calls_come_back(
        self,
        api_client: httpx.AsyncClient,
        database: Database,
        tenant: TestTenant,
        worker: SimulatedWorker,
        *,
        stream: bool,
    ) -> None:
        choice = {"type": "function", "function": {"name": "weather"}}
        asked = {**HI, "tools": [TOOL], "tool_choice": choice, "stream": stream}
        call = asyncio.create_task(api_client.post(CHAT, json=asked))
        job_id = await queued_job(database, tenant)
        claim = await worker.claim(job_id)
        await worker.finish(job_id, text="", tool_calls=[CALL])
        answer = await call

        assert claim.request["tools"] == [TOOL]
        assert claim.request["tool_choice"] == choice
        if stream:
            last = chunks(answer.text)[-1]["choices"][0]
            assert last["delta"]["tool_calls"] == [{"index": 0, **CALL}]
        else:
            last = answer.json()["choices"][0]
            assert last["message"]["tool_calls"] == [CALL]
            assert last["message"]["content"] is None
        assert last["finish_reason"] == "tool_calls"


async def test_tools_that_no_template_takes_are_refused_by_name(api_client: httpx.AsyncClient) -> None:
    answer = await api_client.post(CHAT, json={**HI, "tools": [TOOL]})

    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "tools"


@pytest.mark.parametrize(("path", "asked"), [(CHAT, HI), ("/v1/completions", {"prompt": "Hi."})])
async def test_more_than_one_answer_is_refused_by_name(
    api_client: httpx.AsyncClient, path: str, asked: dict[str, Any]
) -> None:
    answer = await api_client.post(path, json={**asked, "n": 2})

    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "n"
    assert answer.json()["error"]["type"] == "invalid_request_error"
