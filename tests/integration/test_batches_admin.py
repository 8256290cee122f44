"""Operators and the batches of all tenants: stopped, and their failed lines run again."""

from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from core.settings import Settings
from models.catalogue import Catalogue
from models.dialect import Database
from models.keys import ADMIN
from queues.batches.desk import BatchDesk
from queues.storage import open_storage
from tests.integration.test_batches import jsonl, line, run, waiting
from tests.platform_fixtures import TestTenant, make_tenant

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def desk(settings: Settings, database: Database, redis: Redis) -> BatchDesk:
    return BatchDesk(database, redis, open_storage(settings.storage), settings, Catalogue.bundled())


@pytest.fixture
async def operator(database: Database, settings: Settings) -> TestTenant:
    return await make_tenant(database, settings, scopes=(ADMIN,))


async def submit(client: httpx.AsyncClient, *custom_ids: str) -> str:
    content = jsonl(*map(line, custom_ids))
    file = await client.post("/v1/files", files={"file": ("in.jsonl", content)}, data={"purpose": "batch"})
    wanted = {"input_file_id": file.json()["id"], "endpoint": "/v1/chat/completions"}
    batch = await client.post("/v1/batches", json=wanted | {"completion_window": "24h"})
    batch_id: str = batch.json()["id"]
    return batch_id


async def status(client: httpx.AsyncClient, batch_id: str) -> Any:
    return (await client.get(f"/v1/batches/{batch_id}")).json()["status"]


async def test_an_operator_runs_failed_lines_of_any_tenant_again_and_stops_them(
    desk: BatchDesk,
    database: Database,
    api_client: httpx.AsyncClient,
    operator: TestTenant,
) -> None:
    batch_id = await submit(api_client, "a", "b", "c")
    early = await api_client.post(f"/v1/admin/batches/{batch_id}/retry_failed", headers=operator.headers)
    await desk.settle()
    await run(
        database,
        [job_id for job_id, _ in await waiting(database)],
        fails=lambda asked: asked == "Question b?",
    )
    await desk.settle()
    late = await api_client.post(f"/v1/admin/batches/{batch_id}/cancel", headers=operator.headers)

    key = {"Idempotency-Key": "once"}
    again = await api_client.post(
        f"/v1/admin/batches/{batch_id}/retry_failed", headers=operator.headers | key
    )
    twice = await api_client.post(
        f"/v1/admin/batches/{batch_id}/retry_failed", headers=operator.headers | key
    )
    stopped = await api_client.post(
        f"/v1/admin/batches/{again.json()['id']}/cancel", headers=operator.headers
    )

    assert (early.status_code, late.status_code) == (409, 409)
    assert (again.json()["retry_of"], again.json()["status"]) == (batch_id, "validating")
    assert (twice.json()["id"], twice.headers["idempotency-replayed"]) == (again.json()["id"], "true")
    assert stopped.json()["status"] == "cancelling"
    assert await status(api_client, again.json()["id"]) == "cancelling"
    seen = (await api_client.get("/v1/admin/overview", headers=operator.headers)).json()["batches"]
    assert [(one["id"], one["has_failed_lines"]) for one in seen] == [
        (again.json()["id"], False),
        (batch_id, True),
    ]


@pytest.mark.parametrize("verb", ["cancel", "retry_failed"])
async def test_only_an_operator_touches_batches_of_others(
    api_client: httpx.AsyncClient, other_tenant: TestTenant, verb: str
) -> None:
    batch_id = await submit(api_client, "a")

    refused = await api_client.post(f"/v1/admin/batches/{batch_id}/{verb}", headers=other_tenant.headers)
    unknown = await api_client.post(f"/v1/admin/batches/batch_0/{verb}")

    assert (refused.status_code, unknown.status_code) == (403, 404)
