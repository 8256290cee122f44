"""A batch from its file to its output, with a worker that does in the tables what workers do."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI
from redis.asyncio import Redis
from sqlalchemy import func, select, update

from core.settings import Settings
from models.batch_tables import Batch
from models.catalogue import Catalogue
from models.dialect import Database
from models.lifecycle import Status
from models.repositories import execution, outbox, releasing
from models.tables import Job, Outbox
from models.webhook_tables import WebhookDelivery, WebhookEvent
from queues.batches.desk import BatchDesk
from queues.storage import open_storage
from tests.contracts.stores import ending, settle, table
from tests.platform_fixtures import TestTenant

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    batches = settings.batches.model_copy(update={"chunk": 3})
    return settings.model_copy(update={"batches": batches})


@pytest.fixture
def desk(settings: Settings, database: Database, redis: Redis) -> BatchDesk:
    return BatchDesk(database, redis, open_storage(settings.storage), settings, Catalogue.bundled())


@pytest.fixture
def client(app: FastAPI, tenant: TestTenant) -> AsyncOpenAI:
    http = httpx.AsyncClient(transport=httpx.ASGITransport(app=app))
    return AsyncOpenAI(
        base_url="http://penstock.test/v1", api_key=tenant.key, http_client=http, max_retries=0
    )


def line(custom_id: str, *, system: str | None = None, **changes: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": f"Question {custom_id}?"})
    body = {"model": "default", "messages": messages, "max_tokens": 8}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body} | changes


def jsonl(*lines: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(one) + b"\n" for one in lines)


async def submit(client: AsyncOpenAI, content: bytes, **extra: Any) -> str:
    file = await client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = await client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body=extra or None,
    )
    assert batch.status == "validating"
    return batch.id


async def waiting(database: Database) -> list[tuple[str, str]]:
    """Ids of what may be released, in order, and whose batch they are."""
    async with database.read() as connection:
        lanes = (await releasing.look(connection)).lanes
        rows = await outbox.candidates(connection, [(lane, 1000) for lane in lanes])
    return [(row.job_id, row.batch_id or "") for row in rows]


async def claim(database: Database, job_ids: list[str]) -> list[execution.Claim]:
    async with database.begin() as connection:
        return await execution.claim(
            connection, [(job_id, 0) for job_id in job_ids], worker="w", lease=timedelta(minutes=1)
        )


async def run(
    database: Database, job_ids: list[str], *, fails: Callable[[str], bool] = lambda _: False
) -> None:
    """Answers these jobs with their own question."""
    for one in await claim(database, job_ids):
        asked = one.request["messages"][-1]["content"]
        if fails(asked):
            error = {"code": "engine_refused", "message": "no"}
            await settle(database, ending(one.view, Status.FAILED, error=error))
        else:
            usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
            output = {"text": asked, "reasoning": None, "finish_reason": "stop"}
            await settle(database, ending(one.view, Status.COMPLETED, output=output, usage=usage))


async def lines_of(client: AsyncOpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    content = (await client.files.content(file_id)).content
    return [orjson.loads(one) for one in content.splitlines()]


async def count(database: Database, entity: Any) -> int:
    async with database.read() as connection:
        found = await connection.execute(select(func.count()).select_from(table(entity)))
    return int(found.scalar_one())


async def test_openais_client_runs_a_batch_to_its_end(
    client: AsyncOpenAI, desk: BatchDesk, database: Database
) -> None:
    batch_id = await submit(client, jsonl(*(line(f"c{n}") for n in range(10))))
    await desk.settle()
    begun = await client.batches.retrieve(batch_id)
    await run(database, [job_id for job_id, _ in await waiting(database)][::-1])
    counted = await client.batches.retrieve(batch_id)
    await desk.settle()
    batch = await client.batches.retrieve(batch_id)

    assert (begun.status, begun.request_counts and begun.request_counts.total) == ("in_progress", 10)
    assert counted.request_counts
    assert counted.request_counts.completed == 10
    assert batch.status == "completed"
    assert batch.completed_at
    assert batch.in_progress_at
    assert batch.finalizing_at
    assert batch.model == "default"
    assert batch.usage
    assert batch.usage.total_tokens == 70
    assert batch.error_file_id is None
    found = await lines_of(client, batch.output_file_id)
    assert [one["custom_id"] for one in found] == [f"c{n}" for n in range(10)]
    body = found[3]["response"]["body"]
    assert body["choices"][0]["message"]["content"] == "Question c3?"
    assert [one.id async for one in client.batches.list(limit=1)] == [batch_id]


async def test_lines_are_released_by_their_prefixes_and_answered_in_the_order_of_the_file(
    client: AsyncOpenAI, desk: BatchDesk, database: Database
) -> None:
    long, short = "You are a very patient assistant of a shop. " * 4, "You are brief, always. " * 2
    prefixes = [short, None, long, short, long, None, long]
    await submit(client, jsonl(*(line(f"c{n}", system=one) for n, one in enumerate(prefixes))))
    await desk.settle()

    ids = [job_id for job_id, _ in await waiting(database)]
    numbers = [one.request["messages"][-1]["content"] for one in await claim(database, ids)]
    by_id = sorted(zip(ids, numbers, strict=True))

    assert ids == sorted(ids)
    assert [said.split()[1] for _, said in by_id] == ["c2?", "c4?", "c6?", "c0?", "c3?", "c1?", "c5?"]


TWICE_WRONG = line("b", url="/v1/completions", method="GET", extra=1)
TWICE_WRONG["body"] |= {"stream": True, "model": "x", "top": 1, "n": 2, "logit_bias": {"1": 1}}
BAD: list[tuple[bytes, list[tuple[str, str | None]]]] = [
    (b'{"custom_id": "a", "method": "POST"', [("invalid_json_line", None)]),
    (orjson.dumps(line("ok")), []),
    (orjson.dumps(line("ok")), [("invalid_field", "custom_id")]),
    (orjson.dumps(line("u", url="/v1/completions")), [("invalid_field", "url")]),
    (orjson.dumps(line("m", method="GET")), [("invalid_field", "method")]),
    (orjson.dumps(line("s", body={**line("s")["body"], "stream": True})), [("invalid_field", "body.stream")]),
    (orjson.dumps(line("n", body={**line("n")["body"], "model": "x"})), [("model_not_found", "body.model")]),
    (orjson.dumps(line("t", body={**line("t")["body"], "top": 1})), [("invalid_field", "body.top")]),
    (orjson.dumps(line("l", body={**line("l")["body"], "max_tokens": 99_999})),
     [("invalid_field", "body.max_tokens")]),
    (orjson.dumps(line("w", body={**line("w")["body"], "deadline": "x"})),
     [("invalid_field", "body.deadline")]),
    (orjson.dumps({**line("x"), "custom_id": "x" * 3_000_000}), [("invalid_field", "line")]),
    (b'{"custom_id": "nul\\u0000", "method": "POST"}',
     [("invalid_field", "custom_id"), ("invalid_field", "url"), ("invalid_field", "body")]),
    (b'{"custom_id": "raw\x00"}', [("invalid_json_line", None)]),
    (b"[]", [("invalid_field", "body")]),
    (orjson.dumps(TWICE_WRONG), [
        ("invalid_field", "method"),
        ("invalid_field", "extra"),
        ("invalid_field", "url"),
        ("invalid_field", "body.stream"),
        ("invalid_field", "body.logit_bias"),
        ("invalid_field", "body.n"),
        ("invalid_field", "body.top"),
        ("model_not_found", "body.model"),
    ]),
    (orjson.dumps(line("ok", body={**line("ok")["body"], "max_tokens": 99_999})),
     [("invalid_field", "custom_id"), ("invalid_field", "body.max_tokens")]),
]  # fmt: skip


async def test_a_bad_file_says_every_fault_of_every_line_and_nothing_is_queued(
    client: AsyncOpenAI, desk: BatchDesk, database: Database
) -> None:
    batch_id = await submit(client, b"\n".join(raw for raw, _ in BAD))
    await desk.settle()
    batch = await client.batches.retrieve(batch_id)

    assert batch.status == "failed"
    assert batch.failed_at
    assert batch.errors
    assert batch.errors.data
    said = [(one.line, one.code, one.param) for one in batch.errors.data]
    assert said == [(n, *fault) for n, (_, faults) in enumerate(BAD, start=1) for fault in faults]
    assert "line 2" in (batch.errors.data[1].message or "")
    assert await count(database, Job) == 0
    assert await count(database, Outbox) == 0


async def test_a_hundred_bad_lines_are_said_of_more(client: AsyncOpenAI, desk: BatchDesk) -> None:
    batch_id = await submit(client, b"{}\n" * 150)
    await desk.settle()
    batch = await client.batches.retrieve(batch_id)

    assert batch.errors
    assert batch.errors.data
    assert sorted({one.line for one in batch.errors.data}) == list(range(1, 101))


async def test_room_is_free_again_after_a_batch_that_failed(
    client: AsyncOpenAI, desk: BatchDesk, settings: Settings
) -> None:
    small = settings.batches.model_copy(update={"open_lines": 3})
    desk._preparation._settings = settings.model_copy(update={"batches": small})
    for content, status in (
        (b"{}\n" * 3, "failed"),
        (b"", "failed"),
        (jsonl(*map(line, "abc")), "in_progress"),
        (jsonl(line("d")), "failed"),
    ):
        batch_id = await submit(client, content)
        await desk.settle()
        batch = await client.batches.retrieve(batch_id)
        assert batch.status == status, batch

    assert batch.errors
    assert batch.errors.data
    assert batch.errors.data[0].code == "too_many_lines"


async def test_a_file_of_more_lines_than_a_batch_may_have_is_refused(
    client: AsyncOpenAI, desk: BatchDesk, database: Database, settings: Settings
) -> None:
    small = settings.batches.model_copy(update={"most_lines": 3})
    desk._preparation._settings = settings.model_copy(update={"batches": small})
    fits = await submit(client, jsonl(*map(line, "abc")))
    too_many = await submit(client, jsonl(*map(line, "defg")))
    await desk.settle()
    batch = await client.batches.retrieve(too_many)

    assert (await client.batches.retrieve(fits)).status == "in_progress"
    assert batch.status == "failed"
    assert batch.errors
    assert batch.errors.data
    assert [(one.code, one.line) for one in batch.errors.data] == [("too_many_lines", None)]
    assert await count(database, Job) == 3


async def test_what_a_batch_says_of_degradation_is_of_lines_that_say_nothing(
    client: AsyncOpenAI, desk: BatchDesk, database: Database
) -> None:
    own = line("b")
    own["body"]["degradation"] = {"allow": []}
    await submit(client, jsonl(line("a"), own), degradation={"allow": ["truncate"]})
    await desk.settle()
    claims = await claim(database, [job_id for job_id, _ in await waiting(database)])
    said = {one.request["messages"][-1]["content"]: one.request["degradation"]["allow"] for one in claims}

    assert said == {"Question a?": ["truncate"], "Question b?": []}


async def test_failed_lines_are_in_the_error_file_and_only_they_are_run_again(
    client: AsyncOpenAI, desk: BatchDesk, database: Database, api_client: httpx.AsyncClient
) -> None:
    batch_id = await submit(client, jsonl(*map(line, "abcde")))
    await desk.settle()
    ids = [job_id for job_id, _ in await waiting(database)]
    await run(database, ids, fails=lambda asked: asked in {"Question b?", "Question d?"})
    await desk.settle()
    batch = await client.batches.retrieve(batch_id)
    again = (await api_client.post(f"/v1/batches/{batch_id}/retry_failed")).json()
    await desk.settle()
    ids = [job_id for job_id, owner in await waiting(database) if owner == again["id"]]
    await run(database, ids)
    await desk.settle()
    second = await client.batches.retrieve(again["id"])

    assert batch.status == "completed"
    errors = await lines_of(client, batch.error_file_id)
    assert [(one["custom_id"], one["error"]["code"]) for one in errors] == [
        ("b", "engine_refused"),
        ("d", "engine_refused"),
    ]
    assert again["retry_of"] == batch_id
    assert [one["custom_id"] for one in await lines_of(client, second.output_file_id)] == ["b", "d"]


async def test_a_cancelled_batch_delivers_what_is_done_and_lists_the_rest(
    client: AsyncOpenAI, desk: BatchDesk, database: Database
) -> None:
    batch_id = await submit(client, jsonl(*map(line, "abcdef")))
    await desk.settle()
    ids = [job_id for job_id, _ in await waiting(database)]
    await run(database, ids[:2])
    [running] = await claim(database, [ids[2]])
    await client.batches.cancel(batch_id)
    await desk.settle()
    cancelling = await client.batches.retrieve(batch_id)
    await settle(database, ending(running.view, Status.CANCELLED))
    await desk.settle()
    batch = await client.batches.retrieve(batch_id)

    assert cancelling.status == "cancelling"
    assert (batch.status, bool(batch.cancelled_at)) == ("cancelled", True)
    assert [one["custom_id"] for one in await lines_of(client, batch.output_file_id)] == ["a", "b"]
    errors = await lines_of(client, batch.error_file_id)
    assert [one["custom_id"] for one in errors] == ["c", "d", "e", "f"]
    assert {one["error"]["code"] for one in errors} == {"batch_cancelled"}
    assert await count(database, Outbox) == 0
    assert (await client.batches.cancel(batch_id)).status == "cancelled"


async def test_a_batch_whose_window_is_over_expires(
    client: AsyncOpenAI, desk: BatchDesk, database: Database
) -> None:
    batch_id = await submit(client, jsonl(*map(line, "abc")))
    await desk.settle()
    ids = [job_id for job_id, _ in await waiting(database)]
    await run(database, ids[:1])
    await end_window(database, batch_id)
    await desk.settle()
    batch = await client.batches.retrieve(batch_id)

    assert (batch.status, bool(batch.expired_at)) == ("expired", True)
    assert len(await lines_of(client, batch.output_file_id)) == 1
    assert {one["error"]["code"] for one in await lines_of(client, batch.error_file_id)} == {"batch_expired"}


async def end_window(database: Database, batch_id: str, **values: Any) -> None:
    values |= {"expires_at": datetime.now(UTC) - timedelta(seconds=1)}
    async with database.begin() as connection:
        await connection.execute(update(table(Batch)).where(table(Batch).c.id == batch_id).values(**values))


async def test_a_half_loaded_batch_is_loaded_on_by_the_next_desk_and_no_line_twice(
    client: AsyncOpenAI, desk: BatchDesk, database: Database
) -> None:
    batch_id = await submit(client, jsonl(*(line(f"c{n}") for n in range(8))))
    load, loaded = desk._preparation._load, asyncio.Event()

    async def dies_on_the_way(hold: Any, spool: Any) -> None:
        spool._places = spool._places[:6]  # one chunk of three lines
        await load(hold, spool)
        loaded.set()
        await asyncio.Event().wait()

    desk._preparation._load = dies_on_the_way  # type: ignore[method-assign]
    first = asyncio.create_task(desk.run())
    await loaded.wait()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert await count(database, Job) == 3
    desk._preparation._load = load  # type: ignore[method-assign]
    await desk.settle()

    assert await count(database, Job) == 8
    await run(database, [job_id for job_id, _ in await waiting(database)])
    await desk.settle()
    batch = await client.batches.retrieve(batch_id)
    assert [one["custom_id"] for one in await lines_of(client, batch.output_file_id)] == [
        f"c{n}" for n in range(8)
    ]


async def test_lines_that_never_became_jobs_are_listed_in_their_place(
    client: AsyncOpenAI, desk: BatchDesk, database: Database
) -> None:
    batch_id = await submit(client, jsonl(*map(line, "abcde")))
    await desk.settle()
    async with database.begin() as connection:
        await connection.execute(table(Outbox).delete())
        await connection.execute(table(Job).delete().where(table(Job).c.batch_line.in_([2, 5])))
    await end_window(database, batch_id, loaded=3)
    await desk.settle()
    batch = await client.batches.retrieve(batch_id)

    errors = await lines_of(client, batch.error_file_id)
    assert [one["custom_id"] for one in errors] == list("abcde")
    assert {one["error"]["code"] for one in errors} == {"batch_expired"}


async def test_the_output_so_far_is_there_while_it_runs(
    client: AsyncOpenAI, desk: BatchDesk, database: Database, api_client: httpx.AsyncClient
) -> None:
    batch_id = await submit(client, jsonl(*map(line, "abc")))
    await desk.settle()
    ids = [job_id for job_id, _ in await waiting(database)]
    await run(database, ids[1:2])
    early = await api_client.get(f"/v1/batches/{batch_id}/output")
    so_far = await api_client.get(f"/v1/batches/{batch_id}/output", params={"partial": True})

    assert early.status_code == 409
    assert [orjson.loads(one)["custom_id"] for one in so_far.content.splitlines()] == ["b"]


async def test_the_end_of_a_batch_is_told_once_and_its_lines_are_not(
    client: AsyncOpenAI, desk: BatchDesk, database: Database
) -> None:
    webhook = {"url": "https://93.184.216.34/hook", "events": ["batch.completed"]}
    batch_id = await submit(client, jsonl(line("a")), webhook=webhook)
    await desk.settle()
    await run(database, [job_id for job_id, _ in await waiting(database)])
    await desk.settle()

    async with database.read() as connection:
        rows = (await connection.execute(select(table(WebhookEvent)))).all()
    assert [(row.type, orjson.loads(row.body)["data"]["id"]) for row in rows] == [
        ("batch.completed", batch_id)
    ]
    assert await count(database, WebhookDelivery) == 1


async def test_the_same_idempotency_key_is_one_batch(
    client: AsyncOpenAI, api_client: httpx.AsyncClient
) -> None:
    file = await client.files.create(file=jsonl(line("a")), purpose="batch")
    body = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "15m"}
    headers = {"Idempotency-Key": "k"}
    answers = [await api_client.post("/v1/batches", json=body, headers=headers) for _ in range(2)]
    other = await api_client.post("/v1/batches", json={**body, "completion_window": "1h"}, headers=headers)

    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert answers[1].headers["idempotency-replayed"] == "true"
    assert other.status_code == 422


async def test_an_ended_batch_is_kept_as_long_as_jobs_and_as_its_output(
    client: AsyncOpenAI, desk: BatchDesk, database: Database, settings: Settings
) -> None:
    ids = [await submit(client, content) for content in (jsonl(line("a")), b"{}\n", jsonl(line("b")))]
    await desk.settle()
    [(first, _), _] = await waiting(database)
    await run(database, [first])
    await desk.settle()
    ended = [
        batch_id for batch_id in ids if (await client.batches.retrieve(batch_id)).status != "in_progress"
    ]
    with_output = await client.batches.retrieve(ended[0])
    long_ago = datetime.now(UTC) - 2 * settings.upkeep.retention

    await desk._forget_ended()
    young = await count(database, Batch)
    async with database.begin() as connection:
        finished = table(Batch).c.finished_at.is_not(None)
        await connection.execute(update(table(Batch)).where(finished).values(finished_at=long_ago))
    await desk._forget_ended()
    left = [one.id async for one in client.batches.list()]
    await client.files.delete(with_output.output_file_id or "")
    await desk._forget_ended()

    assert young == 3
    assert sorted(left) == [ids[0], ids[2]]
    assert [one.id async for one in client.batches.list()] == [ids[2]]


async def test_a_file_that_a_batch_has_yet_to_read_is_not_deleted(
    client: AsyncOpenAI, api_client: httpx.AsyncClient, desk: BatchDesk
) -> None:
    batch_id = await submit(client, jsonl(line("a")))
    file_id = (await client.batches.retrieve(batch_id)).input_file_id
    early = await api_client.delete(f"/v1/files/{file_id}")
    await desk.settle()

    assert early.status_code == 409
    assert (await client.files.delete(file_id)).deleted


@pytest.mark.parametrize("window", ["14m", "8d", "1s", "tomorrow"])
async def test_another_window_is_refused(api_client: httpx.AsyncClient, window: str) -> None:
    body = {"input_file_id": "file_1", "endpoint": "/v1/chat/completions", "completion_window": window}
    answer = await api_client.post("/v1/batches", json=body)

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "completion_window"


async def test_another_tenants_batch_is_not_found(
    client: AsyncOpenAI, api_client: httpx.AsyncClient, other_tenant: TestTenant
) -> None:
    batch_id = await submit(client, jsonl(line("a")))

    for method, path in (("GET", ""), ("POST", "/cancel"), ("GET", "/output"), ("POST", "/retry_failed")):
        answer = await api_client.request(
            method, f"/v1/batches/{batch_id}{path}", headers=other_tenant.headers
        )
        assert answer.status_code == 404
