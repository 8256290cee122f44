"""From the job's end to the receiver, on both databases, over real HTTP on loopback."""

import threading
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import update
from standardwebhooks import Webhook

from core.settings import Settings
from models.dialect import Database
from models.repositories import jobs
from models.webhook_tables import WebhookReceiver as ReceiverRow
from tests.contracts.stores import OUTBOX, move_time, rows, table
from tests.fakes.webhook_receiver import OK, Answer, WebhookReceiver
from tests.platform_fixtures import SimulatedWorker, TestTenant
from tests.webhooks import (
    ASK,
    DELIVERIES,
    EVENTS,
    Deliverer,
    log,
    make_endpoint,
    on_loopback,
    open_deliverer,
    submit,
)


async def test_an_endpoint_is_told_of_a_job_with_a_signature_that_verifies(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    endpoint = await make_endpoint(api_client, receiver.url)
    job_id = await submit(api_client)
    view = await worker.run(job_id)

    assert await deliverer.run_all() == ["delivered"]

    [call] = receiver.received
    event = Webhook(endpoint["secret"]).verify(call.body, call.headers)
    assert event["id"] == call.event_id
    assert event == {
        "id": event["id"],
        "object": "event",
        "type": "job.completed",
        "created_at": int(view.finished_at.timestamp()) if view.finished_at else None,
        "timestamp": view.finished_at.isoformat() if view.finished_at else None,
        "data": {
            "id": job_id,
            "status": "completed",
            "version": view.version,
            "degradation": {
                "level": 0,
                "name": "full",
                "reason": None,
                "similarity": None,
                "source_job_id": None,
            },
            "usage": view.usage,
            "metadata": ASK["metadata"],
            "output": view.output,
        },
    }


async def test_a_jobs_own_url_is_signed_with_the_default_secret(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    made = (await api_client.post("/v1/webhook_endpoints/default/rotate_secret")).json()
    job_id = await submit(api_client, webhook={"url": receiver.url})
    before = (await api_client.get(f"/v1/jobs/{job_id}")).json()["webhook"]
    await worker.run(job_id)

    await deliverer.run_all()

    [call] = receiver.received
    assert Webhook(made["secret"]).verify(call.body, call.headers)["data"]["id"] == job_id
    assert before == {"state": "pending", "attempts": 0, "last_status_code": None}
    after = (await api_client.get(f"/v1/jobs/{job_id}")).json()["webhook"]
    assert after == {"state": "delivered", "attempts": 1, "last_status_code": 200}


@pytest.mark.parametrize("end", ["completed", "cancelled", "expired"])
async def test_every_way_to_end_tells_in_the_same_transaction(  # noqa: PLR0917
    api_client: httpx.AsyncClient,
    worker: SimulatedWorker,
    database: Database,
    receiver: WebhookReceiver,
    tenant: TestTenant,
    end: str,
) -> None:
    job_id = await submit(api_client, webhook={"url": receiver.url}, max_wait_ms=60_000)
    if end == "completed":
        await worker.run(job_id)
    elif end == "cancelled":
        await api_client.post(f"/v1/jobs/{job_id}/cancel")
    else:
        await move_time(database, OUTBOX, job_id, expires_at=datetime.now(UTC) - timedelta(seconds=1))
        async with database.begin() as connection:
            await jobs.expire(connection, keep=timedelta(days=1), limit=10)

    [event] = await rows(database, EVENTS)
    [delivery] = await rows(database, DELIVERIES)
    assert (event.type, event.job_id, delivery.event_id) == (f"job.{end}", job_id, event.id)
    assert delivery.state == "pending"


async def test_an_end_that_is_rolled_back_tells_nobody(
    api_client: httpx.AsyncClient, database: Database, receiver: WebhookReceiver, tenant: TestTenant
) -> None:
    job_id = await submit(api_client, webhook={"url": receiver.url})

    async with database.begin() as connection:
        await jobs.cancel(connection, tenant.id, job_id, expires_at=datetime.now(UTC))
        await connection.rollback()

    assert await rows(database, EVENTS) == await rows(database, DELIVERIES) == []


async def test_one_event_has_one_id_wherever_it_goes(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    for path in ("a", "b"):
        await make_endpoint(api_client, f"{receiver.url}/{path}")
    await worker.run(await submit(api_client, webhook={"url": receiver.url}))

    await deliverer.run_all()

    assert len(receiver.received) == 3
    assert len({call.event_id for call in receiver.received}) == 1
    assert len({call.body for call in receiver.received}) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 404, 429, 500, 503])
async def test_what_is_not_2xx_is_tried_again_under_the_same_id_with_the_same_body(
    api_client: httpx.AsyncClient,
    worker: SimulatedWorker,
    deliverer: Deliverer,
    receiver: WebhookReceiver,
    status: int,
) -> None:
    location = {"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"}
    receiver.rule = lambda _, number: Answer(status, location) if number < 3 else OK
    job_id = await submit(api_client, webhook={"url": receiver.url})
    await worker.run(job_id)

    words = await deliverer.run_all()

    assert words == ["retrying", "retrying", "delivered"]
    assert {(call.path, call.event_id, call.body) for call in receiver.received} == {
        ("/hook", receiver.received[0].event_id, receiver.received[0].body)
    }
    [delivery] = await log(api_client, job_id=job_id)
    detail = (await api_client.get(f"/v1/webhook_deliveries/{delivery['id']}")).json()
    assert [(one["number"], one["status_code"]) for one in detail["attempts_made"]] == [
        (1, status), (2, status), (3, 200)
    ]  # fmt: skip
    assert all(one["duration_ms"] > 0 for one in detail["attempts_made"])


async def test_a_connection_that_breaks_is_a_failure_with_a_reason(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    receiver.rule = lambda _, number: Answer(reset=True) if number == 1 else OK
    job_id = await submit(api_client, webhook={"url": receiver.url})
    await worker.run(job_id)

    assert await deliverer.run_all() == ["retrying", "delivered"]

    [delivery] = await log(api_client, job_id=job_id)
    detail = (await api_client.get(f"/v1/webhook_deliveries/{delivery['id']}")).json()
    assert detail["attempts_made"][0]["error"] == "the connection was lost"


async def test_retry_after_is_honoured(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    receiver.rule = lambda *_: Answer(503, {"Retry-After": "1000"})
    job_id = await submit(api_client, webhook={"url": receiver.url})
    await worker.run(job_id)

    assert await deliverer.run_all() == ["retrying"]

    [delivery] = await log(api_client, job_id=job_id)
    wait = datetime.fromisoformat(delivery["next_attempt_at"]) - datetime.now(UTC)
    assert timedelta(seconds=900) < wait < timedelta(seconds=1101)


async def test_410_ends_one_url_and_not_its_neighbours(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    receiver.rule = lambda call, _: Answer(410) if call.path.endswith("/old") else OK
    for path in ("old", "old", "new"):
        await worker.run(await submit(api_client, webhook={"url": f"{receiver.url}/{path}"}))
        await deliverer.run_all()

    assert [call.path for call in receiver.received] == ["/hook/old", "/hook/new"]


async def test_ten_failures_in_a_row_open_a_breaker_and_one_probe_closes_it(
    api_client: httpx.AsyncClient,
    database: Database,
    worker: SimulatedWorker,
    deliverer: Deliverer,
    receiver: WebhookReceiver,
) -> None:
    receiver.rule = lambda _, number: Answer(500) if number <= 13 else OK
    endpoint = await make_endpoint(api_client, receiver.url)
    for _ in range(4):
        await worker.run(await submit(api_client))
    path = f"/v1/webhook_endpoints/{endpoint['id']}"

    failing = await deliverer.run_all()
    opened = (await api_client.get(path)).json()
    silent = await deliverer.run_all()
    await end_pause(database)
    probe, nothing = await deliverer.run_due(), await deliverer.run_due()
    await end_pause(database)
    closing = await deliverer.run_due()
    rest = await deliverer.run_all()

    assert len(failing) == 12  # three rounds of four: calls under way when it opened still end
    assert opened["failures_in_a_row"] >= 10
    assert opened["paused_until"] is not None
    assert silent == []
    assert (probe, nothing, closing) == (["retrying"], [], ["delivered"])
    closed = (await api_client.get(path)).json()
    assert (closed["failures_in_a_row"], closed["paused_until"]) == (0, None)
    assert rest == ["delivered"] * 3
    assert {one["state"] for one in await log(api_client)} == {"delivered"}


async def end_pause(database: Database) -> None:

    async with database.begin() as connection:
        over = datetime.now(UTC) - timedelta(seconds=1)
        await connection.execute(update(table(ReceiverRow)).values(open_until=over))


async def test_a_receiver_has_no_more_calls_at_once_than_its_limit(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    slow, quick = f"{receiver.url}/slow", f"{receiver.url}/quick"
    mine = [await make_endpoint(api_client, url) for url in (slow, quick)]
    for _ in range(6):
        await worker.run(await submit(api_client))

    taken = [await deliverer.release(), await deliverer.release()]

    assert [len(claims) for claims in taken] == [8, 0]  # four of each
    states = {one["id"]: await log(api_client, endpoint_id=one["id"], state="delivering") for one in mine}
    assert {len(found) for found in states.values()} == {4}


async def test_a_call_whose_sender_died_is_made_again_and_the_old_one_is_fenced_off(
    api_client: httpx.AsyncClient,
    database: Database,
    worker: SimulatedWorker,
    deliverer: Deliverer,
    receiver: WebhookReceiver,
) -> None:
    await worker.run(await submit(api_client, webhook={"url": receiver.url}))
    [claim] = await deliverer.release()
    async with database.begin() as connection:
        over = datetime.now(UTC) - timedelta(seconds=1)
        await connection.execute(update(DELIVERIES).values(due_at=over))

    again = await deliverer.run_due()
    late = await deliverer.service.deliver(*claim)

    assert (again, late) == (["delivered"], "dropped")
    assert len(receiver.received) == 1


async def test_a_message_that_comes_twice_makes_one_call(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    await worker.run(await submit(api_client, webhook={"url": receiver.url}))
    [claim] = await deliverer.release()

    words = [await deliverer.service.deliver(*claim) for _ in range(2)]

    assert words == ["delivered", "dropped"]


async def test_an_answer_is_read_no_further_than_64_kilobytes_and_never_shown(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    receiver.rule = lambda *_: Answer(200, body=b"secret-of-the-inside" * 500_000)
    job_id = await submit(api_client, webhook={"url": receiver.url})
    await worker.run(job_id)

    assert await deliverer.run_all() == ["delivered"]

    [delivery] = await log(api_client, job_id=job_id)
    shown = (await api_client.get(f"/v1/webhook_deliveries/{delivery['id']}")).text
    assert "inside" not in shown


async def test_connections_are_used_again(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    for _ in range(5):
        await worker.run(await submit(api_client, webhook={"url": receiver.url}))

    await deliverer.run_all()

    assert (len(receiver.received), receiver.connections) == (5, 1)


async def test_a_receiver_that_hangs_is_left_after_the_timeout(
    api_client: httpx.AsyncClient,
    database: Database,
    settings: Settings,
    worker: SimulatedWorker,
    receiver: WebhookReceiver,
) -> None:
    never = threading.Event()
    receiver.rule = lambda *_: Answer(hold=never)
    job_id = await submit(api_client, webhook={"url": receiver.url})
    await worker.run(job_id)
    hasty = on_loopback(receiver.port, timeout=timedelta(milliseconds=200), schedule=(timedelta(hours=1),))

    async with open_deliverer(database, settings.model_copy(update={"webhooks": hasty})) as deliverer:
        words = await deliverer.run_due()
    never.set()

    assert words == ["retrying"]
    [delivery] = await log(api_client, job_id=job_id)
    assert delivery["last_error"] == "no answer in time"


async def test_deliveries_end_when_the_schedule_does(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    receiver.rule = lambda call, _: Answer(500)
    await worker.run(await submit(api_client, webhook={"url": receiver.url}))

    words = await deliverer.run_all()

    assert words == ["retrying"] * 9 + ["failed"]
    [delivery] = await log(api_client)
    assert (delivery["state"], delivery["next_attempt_at"]) == ("failed", None)


async def test_what_was_allowed_at_submit_is_asked_again_at_delivery(
    api_client: httpx.AsyncClient,
    database: Database,
    settings: Settings,
    worker: SimulatedWorker,
    receiver: WebhookReceiver,
) -> None:
    job_id = await submit(api_client, webhook={"url": receiver.url})
    await worker.run(job_id)
    strict = on_loopback(receiver.port, allowed_networks=(), schedule=(timedelta(hours=1),))

    async with open_deliverer(database, settings.model_copy(update={"webhooks": strict})) as deliverer:
        words = await deliverer.run_due()

    assert (words, receiver.received) == (["retrying"], [])
    [delivery] = await log(api_client, job_id=job_id)
    assert delivery["last_error"] == "The host is a loopback address; only public addresses are called."


async def test_a_redirect_to_loopback_is_not_followed(
    api_client: httpx.AsyncClient, worker: SimulatedWorker, deliverer: Deliverer, receiver: WebhookReceiver
) -> None:
    with WebhookReceiver() as inside:
        receiver.rule = lambda _, number: Answer(307, {"Location": inside.url}) if number < 9 else OK
        await worker.run(await submit(api_client, webhook={"url": receiver.url}))

        await deliverer.run_all()

        assert inside.received == []
