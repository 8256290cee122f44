"""Kept answers over HTTP: the same request, a similar question under pressure, and none across tenants."""

import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from fastapi import FastAPI
from redis.asyncio import Redis

from api.app import create_app
from core.settings import AnswerSettings, Settings
from models.catalogue import Catalogue
from models.degradation import Level
from models.dialect import Database
from models.repositories import execution
from queues.follow_ups import release_follow_ups
from queues.policy.pressure import Pressure
from queues.policy.state import State, Verdict
from queues.pressure_board import publish
from queues.similar.feed import AnswerFeed
from queues.similar.index import AnswerIndex
from tests.contracts.stores import OUTBOX, rows
from tests.platform_fixtures import SimulatedWorker, TestTenant, client_of

ASKED = {"prompt": "How do I reset my password?", "temperature": 0, "max_tokens": 32}
REWORDED = {**ASKED, "prompt": "hello, could you please tell me: how do I reset my password"}


class Keeper:
    """Answers a job as a worker does, and offers the answer to the index."""

    def __init__(self, worker: SimulatedWorker, redis: Redis, settings: Settings) -> None:
        self._worker = worker
        index = AnswerIndex(redis, namespace=settings.broker.namespace, settings=settings.answers)
        revisions = {name: Catalogue.bundled().get(name).revision for name in Catalogue.bundled().names}
        self.feed = AnswerFeed(index, settings.answers, revisions)

    async def run(self, job_id: str, **changes: Any) -> None:
        claim: execution.Claim = await self._worker.claim(job_id)
        view = await self._worker.finish(job_id, **changes)
        self.feed.offer(view, claim.request)
        await self.feed.flush()


@pytest.fixture
def always(settings: Settings) -> Settings:
    return settings.model_copy(update={"answers": AnswerSettings(exact="always")})


@pytest.fixture
async def keeper(worker: SimulatedWorker, redis: Redis, settings: Settings) -> Any:
    made = Keeper(worker, redis, settings)
    made.feed.start()
    yield made
    await made.feed.close()


@pytest.fixture
async def cached_app(always: Settings, database: Database, redis: Redis) -> Any:
    made = create_app(always, database=database, redis=redis, catalogue=Catalogue.bundled())
    async with LifespanManager(made):
        yield made


@pytest.fixture
async def client(cached_app: FastAPI, tenant: TestTenant) -> Any:
    async with client_of(cached_app, tenant.headers) as made:
        yield made


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
    return await client.post("/v1/jobs", json=body)


async def first(client: httpx.AsyncClient, keeper: Keeper, body: dict[str, Any] = ASKED) -> str:
    job_id: str = (await ask(client, body)).json()["id"]
    await keeper.run(job_id, text="Open the settings.")
    return job_id


async def test_the_same_request_is_answered_at_once_in_full(
    client: httpx.AsyncClient, keeper: Keeper
) -> None:
    source = await first(client, keeper)

    answer = await ask(client, dict(reversed(ASKED.items())))

    assert answer.status_code == 200
    assert answer.headers["X-Degradation-Level"] == "0"
    job = answer.json()
    assert job["id"] != source
    assert job["output"]["text"] == "Open the settings."
    assert job["degradation"]["source_job_id"] == source
    assert job["usage"]["total_tokens"] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.5},
        {"prompt": "How do I reset my PIN?"},
        {"max_tokens": 31},
        {"cache": False},
        {"stop": ["x"]},
    ],
)
async def test_another_request_is_not(
    client: httpx.AsyncClient, keeper: Keeper, changes: dict[str, Any]
) -> None:
    await first(client, keeper)

    assert (await ask(client, {**ASKED, **changes})).status_code == 202


async def test_a_sampled_answer_is_shared_by_those_who_say_so(
    client: httpx.AsyncClient, keeper: Keeper
) -> None:
    sampled = {**ASKED, "temperature": 0.9}
    await first(client, keeper, {**sampled, "cache": True})

    assert (await ask(client, sampled)).status_code == 202
    assert (await ask(client, {**sampled, "cache": True})).status_code == 200


async def test_another_tenant_never_gets_it(
    client: httpx.AsyncClient, keeper: Keeper, other_tenant: TestTenant
) -> None:
    await first(client, keeper)

    theirs = await client.post("/v1/jobs", json=ASKED, headers=other_tenant.headers)

    assert theirs.status_code == 202


async def test_a_retry_gets_an_answer_of_its_own(client: httpx.AsyncClient, keeper: Keeper) -> None:
    source = await first(client, keeper)

    assert (await client.post(f"/v1/jobs/{source}/retry")).status_code == 202


async def test_erasing_a_job_and_purging_an_answer_remove_it(
    client: httpx.AsyncClient, keeper: Keeper
) -> None:
    for method, path in (("DELETE", "/v1/jobs/{}"), ("DELETE", "/v1/admin/answers/{}")):
        source = await first(client, keeper)
        before = await ask(client, ASKED)
        gone = await client.request(method, path.format(source))
        after = await ask(client, ASKED)

        assert (before.status_code, after.status_code) == (200, 202)
        assert gone.is_success


async def test_without_pressure_and_the_setting_nothing_is_answered_from_the_index(
    api_client: httpx.AsyncClient, keeper: Keeper
) -> None:
    await first(api_client, keeper)

    assert (await ask(api_client, ASKED)).status_code == 202


async def under_pressure(redis: Redis, settings: Settings, level: Level) -> None:
    """What the leader would tell every process."""
    state = State(level=level, reason="queue depth 84 > 50")
    verdict = Verdict(state, Pressure(at=time.time()))
    await publish(redis, settings.broker.namespace, {"default": verdict})


@pytest.fixture
async def pressed(
    settings: Settings, database: Database, redis: Redis, tenant: TestTenant
) -> AsyncIterator[httpx.AsyncClient]:
    await under_pressure(redis, settings, Level.SIMILAR)
    app = create_app(settings, database=database, redis=redis, catalogue=Catalogue.bundled())
    async with LifespanManager(app), client_of(app, tenant.headers) as client:
        yield client


async def test_under_pressure_a_rewording_gets_the_answer_with_its_label(
    api_client: httpx.AsyncClient, pressed: httpx.AsyncClient, keeper: Keeper
) -> None:
    source = await first(api_client, keeper)

    answer = await ask(pressed, REWORDED)
    same = await ask(pressed, ASKED)

    assert answer.status_code == 200
    assert answer.headers["X-Degradation-Level"] == "3"
    assert answer.json()["degradation"] == {
        "level": 3,
        "name": "similar",
        "reason": "queue depth 84 > 50",
        "similarity": 1.0,
        "source_job_id": source,
    }
    assert same.headers["X-Degradation-Level"] == "0"


@pytest.mark.parametrize(
    "changes",
    [
        {"degradation": {"allow": []}},
        {"degradation": {"allow": ["truncate", "template"]}},
        {"service_class": "bulk"},
        {"cache": False},
        {"top_p": 0.5},
        {"max_tokens": 1},
        {"prompt": "How do I not reset my password?"},
    ],
)
async def test_who_refuses_or_asks_otherwise_does_not_get_it(
    api_client: httpx.AsyncClient, pressed: httpx.AsyncClient, keeper: Keeper, changes: dict[str, Any]
) -> None:
    await first(api_client, keeper)

    assert (await ask(pressed, {**REWORDED, **changes})).status_code == 202


async def test_no_rewording_crosses_tenants(
    api_client: httpx.AsyncClient,
    pressed: httpx.AsyncClient,
    keeper: Keeper,
    other_tenant: TestTenant,
) -> None:
    await first(api_client, keeper)

    theirs = await pressed.post("/v1/jobs", json=REWORDED, headers=other_tenant.headers)

    assert theirs.status_code == 202


async def test_a_follow_up_waits_for_calm_and_both_jobs_name_each_other(
    api_client: httpx.AsyncClient, pressed: httpx.AsyncClient, keeper: Keeper, database: Database
) -> None:
    await first(api_client, keeper)
    hook = {"url": "https://93.184.216.34/hook"}
    wanted = {**REWORDED, "degradation": {"follow_up": True}, "webhook": hook}

    degraded = (await ask(pressed, wanted)).json()
    full = (await pressed.get(f"/v1/jobs/{degraded['follow_up']}")).json()
    under_load = await release_follow_ups(database, {"default": State(level=Level.TRUNCATE)})
    still = await _state(database, full["id"])
    calm = await release_follow_ups(database, {"default": State(level=Level.FULL)})

    assert degraded["status"] == "completed"
    assert full["follow_up_of"] == degraded["id"]
    assert (full["status"], full["service_class"], full["degradation"]["level"]) == ("queued", "bulk", 0)
    assert full["webhook"]["state"] == "pending"
    assert (under_load, still, calm) == (0, "scheduled", 1)
    assert await _state(database, full["id"]) == "waiting"


async def test_without_a_degraded_answer_there_is_no_follow_up(
    pressed: httpx.AsyncClient, api_client: httpx.AsyncClient
) -> None:
    answer = await ask(api_client, {**ASKED, "degradation": {"follow_up": True}})

    assert answer.status_code == 202
    assert answer.json()["follow_up"] is None


async def _state(database: Database, job_id: str) -> str:
    [row] = await rows(database, OUTBOX, job_id)
    state: str = row.state
    return state


async def test_a_truncated_job_has_its_follow_up_too_and_it_is_whole(pressed: httpx.AsyncClient) -> None:
    wanted = {"prompt": "Tell me a story.", "max_tokens": 500, "degradation": {"follow_up": True}}

    cut = await ask(pressed, wanted)
    full = (await pressed.get(f"/v1/jobs/{cut.json()['follow_up']}")).json()

    assert cut.status_code == 202
    assert cut.json()["degradation"]["level"] == 1
    assert full["follow_up_of"] == cut.json()["id"]
    assert (full["service_class"], full["degradation"]["level"]) == ("bulk", 0)
