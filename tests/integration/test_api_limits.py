"""Limits and usage over HTTP; every answer is held against the OpenAPI document."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from redis.asyncio import Redis

from api.app import create_app
from core.settings import DefaultLimits, LimitSettings, Settings
from models.catalogue import Catalogue
from models.dialect import Database
from models.keys import parse_key
from models.limits import Complexity, Limits
from models.repositories import access, submission
from models.repositories.submission import NewJob
from tests.platform_fixtures import SimulatedWorker, TestTenant, client_of

PROMPT = {"prompt": "Why is the sky blue?", "max_tokens": 50}


async def limit(database: Database, owner: str, **limits: Any) -> None:
    async with database.begin() as connection:
        await access.set_limits(connection, owner, Limits(**limits))


def key_id(tenant: TestTenant) -> str:
    parts = parse_key(tenant.key)
    assert parts is not None
    return parts[0]


async def test_without_limits_no_answer_speaks_of_any(api_client: httpx.AsyncClient) -> None:
    answer = await api_client.post("/v1/jobs", json=PROMPT)

    assert answer.status_code == 202
    assert not [name for name in answer.headers if "ratelimit" in name]
    assert answer.headers["X-Request-Complexity-Applied"] == "low"


async def test_an_answer_says_where_its_caller_stands_and_a_refusal_when_to_come_again(
    database: Database, tenant: TestTenant, api_client: httpx.AsyncClient
) -> None:
    await limit(database, tenant.id, requests_per_minute=2, tokens_per_minute=10_000)
    first = await api_client.post("/v1/jobs", json=PROMPT)
    await api_client.post("/v1/jobs", json=PROMPT)
    refused = await api_client.post("/v1/jobs", json=PROMPT)

    assert first.headers["RateLimit-Policy"] == '"tenant-requests";q=2;w=60, "tenant-tokens";q=10000;w=60'
    assert first.headers["RateLimit"].startswith('"tenant-requests";r=1;t=')
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 10_000 - 50
    assert refused.status_code == 429
    assert refused.json()["code"] == "rate_limited"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["Retry-After"]) <= 120
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"


async def test_each_prompt_of_a_bulk_submission_counts(
    database: Database, tenant: TestTenant, api_client: httpx.AsyncClient
) -> None:
    await limit(database, key_id(tenant), requests_per_minute=2)
    answer = await api_client.post("/v1/jobs/bulk", json={"jobs": [PROMPT] * 3})

    assert [one["status"] for one in answer.json()["data"]] == [202, 202, 429]
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"


async def test_a_request_that_is_refused_for_its_fields_counts_nothing(
    database: Database, tenant: TestTenant, api_client: httpx.AsyncClient
) -> None:
    await limit(database, tenant.id, requests_per_minute=1)
    wrong = await api_client.post("/v1/jobs", json={"prompt": "x", "model": "nobody"})
    right = await api_client.post("/v1/jobs", json=PROMPT)

    assert (wrong.status_code, right.status_code) == (422, 202)


async def test_the_bound_on_unfinished_jobs(
    database: Database, tenant: TestTenant, api_client: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    await limit(database, tenant.id, concurrent_jobs=1)
    first = await api_client.post("/v1/jobs", json=PROMPT)
    refused = await api_client.post("/v1/jobs", json=PROMPT)
    await worker.run(first.json()["id"])
    after = await api_client.post("/v1/jobs", json=PROMPT)

    assert (first.status_code, refused.status_code, after.status_code) == (202, 429, 202)
    assert refused.json()["code"] == "rate_limited"


async def test_a_quota_ends_with_what_finished_jobs_used(
    database: Database, tenant: TestTenant, api_client: httpx.AsyncClient, worker: SimulatedWorker
) -> None:
    await limit(database, key_id(tenant), tokens_per_day=5)
    job = NewJob(
        id="job_earlier",
        tenant_id=tenant.id,
        key_id=key_id(tenant),
        model="default",
        service_class="standard",
        priority=5,
        cost=5,
        fingerprint="f",
        request=PROMPT,
        created_at=datetime.now(UTC),
    )
    async with database.begin() as connection:
        await submission.accept(database, connection, [job])
    await worker.run(job.id)  # 5 tokens
    refused = await api_client.post("/v1/jobs", json=PROMPT)

    assert refused.status_code == 429
    assert refused.json()["code"] == "quota_exhausted"
    assert refused.headers["RateLimit-Policy"] == '"key-tokens-per-day";q=5;w=86400'
    assert refused.headers["RateLimit"].startswith('"key-tokens-per-day";r=0;t=')
    assert int(refused.headers["Retry-After"]) >= 1


async def test_usage_is_the_tenants_own(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, tenant: TestTenant, other_tenant: TestTenant
) -> None:
    for _ in range(2):
        await worker.run((await api_client.post("/v1/jobs", json=PROMPT)).json()["id"])

    by_key = (await api_client.get("/v1/usage", params={"group_by": "key"})).json()
    theirs = (await api_client.get("/v1/usage", headers=other_tenant.headers)).json()

    assert by_key["data"] == [
        {
            "group": key_id(tenant),
            "jobs": 2,
            "degraded": 0,
            "prompt_tokens": 6,
            "cached_tokens": 0,
            "completion_tokens": 4,
            "total_tokens": 10,
        }
    ]
    assert by_key["total"]["total_tokens"] == 10
    assert by_key["until"] == datetime.now(UTC).date().isoformat()
    assert theirs["data"] == []


@pytest.mark.parametrize(
    "params", [{"from": "2030-02-01", "to": "2030-01-01"}, {"from": "2020-01-01"}, {"group_by": "moon"}]
)
async def test_a_wrong_question_about_usage_names_its_field(
    api_client: httpx.AsyncClient, params: dict[str, str]
) -> None:
    answer = await api_client.get("/v1/usage", params=params)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] in {"from", "group_by"}


async def test_operators_set_and_read_limits(api_client: httpx.AsyncClient, tenant: TestTenant) -> None:
    path = f"/v1/admin/tenants/{tenant.id}/limits"
    wrong = await api_client.put(path, json={"requests_per_minute": -1})
    put = await api_client.put(path, json={"requests_per_minute": 7, "max_complexity": "medium"})
    read = await api_client.get(path)
    of_key = await api_client.get(f"/v1/admin/keys/{key_id(tenant)}/limits")
    nobody = await api_client.put("/v1/admin/keys/nobody/limits", json={})

    assert wrong.status_code == 422
    assert put.json() == read.json()
    assert (read.json()["requests_per_minute"], read.json()["max_complexity"]) == (7, "medium")
    assert of_key.json()["requests_per_minute"] is None
    assert nobody.status_code == 404


async def test_complexity_is_recomputed_cut_and_echoed(
    database: Database, tenant: TestTenant, api_client: httpx.AsyncClient
) -> None:
    async def applied(word: str) -> str | None:
        answer = await api_client.post("/v1/jobs", json=PROMPT, headers={"X-Request-Complexity": word})
        return answer.headers.get("X-Request-Complexity-Applied")

    await limit(database, tenant.id, max_complexity=Complexity.MEDIUM)
    words = [await applied(word) for word in ("low", "medium", "high", "auto", "HIGH")]
    wrong = await api_client.post("/v1/jobs", json=PROMPT, headers={"X-Request-Complexity": "huge"})

    assert words == ["low", "medium", "medium", "low", "medium"]
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["field"] == "X-Request-Complexity"


async def test_defaults_count_where_nothing_was_set(
    settings: Settings, database: Database, redis: Redis, tenant: TestTenant
) -> None:
    limited = settings.model_copy(
        update={"limits": LimitSettings(tenant=DefaultLimits(requests_per_minute=1))}
    )
    app = create_app(limited, database=database, redis=redis, catalogue=Catalogue.bundled())
    async with LifespanManager(app), client_of(app, tenant.headers) as client:
        answers = await asyncio.gather(*(client.post("/v1/jobs", json=PROMPT) for _ in range(3)))

    assert sorted(answer.status_code for answer in answers) == [202, 429, 429]
