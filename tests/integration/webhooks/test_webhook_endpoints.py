"""Endpoints, their secrets and the delivery log, over HTTP, on both databases."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from sqlalchemy import update
from standardwebhooks import Webhook, WebhookVerificationError

from core.settings import Settings
from models.dialect import Database
from models.webhook_tables import WebhookSecret
from tests.contracts.stores import rows, table
from tests.fakes.webhook_receiver import Answer, WebhookReceiver
from tests.platform_fixtures import SimulatedWorker, TestTenant, client_of
from tests.webhooks import (
    ASK,
    EVENTS,
    Deliverer,
    log,
    make_endpoint,
    submit,
)


async def test_filters_choose_who_is_told(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    await make_endpoint(api_client, f"{receiver.url}/failures", events=["job.failed"])
    await make_endpoint(api_client, f"{receiver.url}/all")
    uninterested = await submit(api_client, webhook={"url": f"{receiver.url}/own", "events": ["job.failed"]})
    await worker.run(uninterested)

    await deliverer.run_all()

    assert [call.path for call in receiver.received] == ["/hook/all"]
    assert (await api_client.get(f"/v1/jobs/{uninterested}")).json()["webhook"] is None


async def test_during_a_rotation_both_secrets_verify_and_afterwards_the_new_one_alone(
    api_client: httpx.AsyncClient,
    database: Database,
    worker: SimulatedWorker,
    deliverer: Deliverer,
    receiver: WebhookReceiver,
) -> None:
    endpoint = await make_endpoint(api_client, receiver.url)
    rotated = (await api_client.post(f"/v1/webhook_endpoints/{endpoint['id']}/rotate_secret")).json()
    await worker.run(await submit(api_client))
    await deliverer.run_all()
    from models.webhook_tables import WebhookSecret

    async with database.begin() as connection:
        over = datetime.now(UTC) - timedelta(seconds=1)
        await connection.execute(update(table(WebhookSecret)).values(previous_until=over))
    await worker.run(await submit(api_client))
    await deliverer.run_all()

    during, after = receiver.received
    assert datetime.fromisoformat(rotated["previous_valid_until"]) > datetime.now(UTC) + timedelta(hours=23)
    assert Webhook(endpoint["secret"]).verify(during.body, during.headers)
    assert Webhook(rotated["secret"]).verify(during.body, during.headers)
    assert Webhook(rotated["secret"]).verify(after.body, after.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(endpoint["secret"]).verify(after.body, after.headers)


async def test_410_disables_an_endpoint_and_nothing_goes_there_any_more(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    receiver.rule = lambda *_: Answer(410)
    endpoint = await make_endpoint(api_client, receiver.url)
    first, second = await submit(api_client), await submit(api_client)
    await worker.run(first)
    await worker.run(second)
    [claimed, also] = await deliverer.release()
    words = [await deliverer.service.deliver(*claimed), await deliverer.service.deliver(*also)]
    await worker.run(await submit(api_client))
    words += await deliverer.run_all()

    assert words == ["failed", "dropped"]
    assert len(receiver.received) == 1
    seen = (await api_client.get(f"/v1/webhook_endpoints/{endpoint['id']}")).json()
    assert (seen["enabled"], seen["disabled_reason"]) == (False, "gone")
    assert {one["state"] for one in await log(api_client, endpoint_id=endpoint["id"])} == {
        "failed", "cancelled"
    }  # fmt: skip


async def test_a_redelivery_is_the_same_message_byte_for_byte(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    endpoint = await make_endpoint(api_client, receiver.url)
    await worker.run(await submit(api_client))
    await deliverer.run_all()
    [delivery] = await log(api_client)

    again = await api_client.post(f"/v1/webhook_deliveries/{delivery['id']}/redeliver")
    await deliverer.run_all()

    assert (again.status_code, again.json()["state"]) == (202, "pending")
    first, second = receiver.received
    assert (first.event_id, first.body) == (second.event_id, second.body)
    assert Webhook(endpoint["secret"]).verify(second.body, second.headers)
    [delivery] = await log(api_client)
    assert (delivery["state"], delivery["attempts"]) == ("delivered", 2)


async def test_an_erased_job_takes_its_event_along(
    api_client: httpx.AsyncClient,
    database: Database,
    worker: SimulatedWorker,
    deliverer: Deliverer,
    receiver: WebhookReceiver,
) -> None:
    job_id = await submit(api_client, webhook={"url": receiver.url})
    await worker.run(job_id)
    await deliverer.run_all()
    [delivery] = await log(api_client)
    await api_client.delete(f"/v1/jobs/{job_id}")

    again = await api_client.post(f"/v1/webhook_deliveries/{delivery['id']}/redeliver")

    assert again.status_code == 409
    assert [row.body for row in await rows(database, EVENTS)] == [None]


async def test_a_test_event_reaches_an_endpoint_whatever_its_filter(
    api_client: httpx.AsyncClient, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    endpoint = await make_endpoint(api_client, receiver.url, events=["batch.failed"])

    answer = await api_client.post(f"/v1/webhook_endpoints/{endpoint['id']}/test")
    await deliverer.run_all()

    assert (answer.status_code, answer.json()["type"]) == (202, "webhook.test")
    event = Webhook(endpoint["secret"]).verify(receiver.received[0].body, receiver.received[0].headers)
    assert (event["type"], event["data"]) == ("webhook.test", {"endpoint_id": endpoint["id"]})


async def test_secrets_are_shown_once_and_kept_sealed(
    api_client: httpx.AsyncClient, database: Database, receiver: WebhookReceiver
) -> None:
    endpoint = await make_endpoint(api_client, receiver.url)

    seen = (await api_client.get(f"/v1/webhook_endpoints/{endpoint['id']}")).text
    listed = (await api_client.get("/v1/webhook_endpoints")).text
    kept = str(await rows(database, table(WebhookSecret)))

    assert endpoint["secret"].startswith("whsec_")
    assert endpoint["secret"] not in seen + listed
    assert endpoint["secret"].removeprefix("whsec_") not in kept


async def test_an_endpoint_is_changed_disabled_enabled_and_deleted(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    endpoint = await make_endpoint(api_client, receiver.url)
    path = f"/v1/webhook_endpoints/{endpoint['id']}"
    await worker.run(await submit(api_client))

    off = await api_client.patch(path, json={"enabled": False})
    refused = await api_client.post(f"{path}/test")
    await worker.run(await submit(api_client))
    on = await api_client.patch(
        path, json={"enabled": True, "url": f"{receiver.url}/new", "description": "n"}
    )
    await worker.run(await submit(api_client))
    words = await deliverer.run_all()
    gone = await api_client.delete(path)

    assert (off.json()["enabled"], off.json()["disabled_reason"]) == (False, "owner")
    assert refused.status_code == 409
    assert (on.json()["enabled"], on.json()["description"]) == (True, "n")
    assert words == ["delivered"]
    assert [call.path for call in receiver.received] == ["/hook/new"]
    assert gone.status_code == 204
    assert (await api_client.get(path)).status_code == 404
    [delivered, *_] = await log(api_client, state="delivered")
    again = await api_client.post(f"/v1/webhook_deliveries/{delivered['id']}/redeliver")
    assert again.status_code == 409


async def test_the_log_is_filtered_and_paged(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    endpoint = await make_endpoint(api_client, receiver.url)
    ids = [await submit(api_client, webhook={"url": receiver.url}) for _ in range(3)]
    for job_id in ids:
        await worker.run(job_id)

    first = (await api_client.get("/v1/webhook_deliveries?limit=4")).json()
    rest = (await api_client.get(f"/v1/webhook_deliveries?limit=4&after={first['last_id']}")).json()

    assert (len(first["data"]), first["has_more"], len(rest["data"]), rest["has_more"]) == (4, True, 2, False)
    assert len(await log(api_client, job_id=ids[0])) == 2
    assert len(await log(api_client, endpoint_id=endpoint["id"])) == 3
    assert await log(api_client, state="delivered") == []


async def test_a_retried_job_keeps_its_webhook(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    job_id = await submit(api_client, webhook={"url": receiver.url})
    await worker.run(job_id)
    again = (await api_client.post(f"/v1/jobs/{job_id}/retry")).json()["id"]
    await worker.run(again)

    await deliverer.run_all()

    assert [call.event["data"]["id"] for call in receiver.received] == [job_id, again]


async def test_another_tenants_webhooks_are_not_there(  # noqa: PLR0917
    app: FastAPI,
    api_client: httpx.AsyncClient,
    other_tenant: TestTenant,
    worker: SimulatedWorker,
    redis: Redis,
    receiver: WebhookReceiver,
) -> None:
    endpoint = await make_endpoint(api_client, receiver.url)
    await worker.run(await submit(api_client))
    [delivery] = await log(api_client)
    bodies = {"change_webhook_endpoint": {"enabled": False}}
    ids = {"{endpoint_id}": endpoint["id"], "{delivery_id}": delivery["id"]}
    routes = [
        (method, path, operation["operationId"])
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
        if any(name in path for name in ids)
    ]

    async with client_of(app, other_tenant.headers) as stranger:
        for method, path, operation in routes:
            for name, value in ids.items():
                path = path.replace(name, value)  # noqa: PLW2901
            answer = await stranger.request(method, path, json=bodies.get(operation))
            assert answer.status_code == 404, (method, path)
        listed = [
            (await stranger.get(f"/v1/webhook_{kind}")).json()["data"] for kind in ("endpoints", "deliveries")
        ]

    assert len(routes) == 7
    assert listed == [[], []]
    assert (await api_client.get(f"/v1/webhook_endpoints/{endpoint['id']}")).json()["enabled"] is True


@pytest.mark.parametrize(
    "url", ["https://10.0.0.1/", "https://[::ffff:127.0.0.1]/", "ftp://example.com/", "https://127.1/"]
)
async def test_a_hostile_url_is_refused_at_submit_with_a_reason(
    api_client: httpx.AsyncClient, settings: Settings, url: str
) -> None:
    job = await api_client.post("/v1/jobs", json={**ASK, "webhook": {"url": url}})
    endpoint = await api_client.post("/v1/webhook_endpoints", json={"url": url})

    for answer, field in ((job, "webhook.url"), (endpoint, "url")):
        assert answer.status_code == 422
        assert answer.json()["code"] == "webhook_url_refused"
        assert answer.json()["errors"][0]["field"] == field
