"""What Penstock is compared with: each a small honest service, built as its documentation says.

Run by the benchmarks: python -m uvicorn --factory benchmarks.rivals:bare
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import aio_pika
import orjson
from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.concurrency import run_in_threadpool

from tests.fakes.simulated_engine import SimulatedEngine
from workers.engines.protocol import Prompt, Sampling

PLACES = 512  # more than any benchmark has clients


class Message(BaseModel):
    role: str
    content: str


class Job(BaseModel):
    messages: list[Message]
    max_tokens: int = 256
    service_class: str = "standard"


class Accepted(BaseModel):
    id: str
    status: str = "queued"


def bare() -> FastAPI:
    """A validated POST that does nothing: the floor for any Python service."""
    app = FastAPI()

    @app.post("/v1/jobs", status_code=202)
    async def submit(job: Job) -> Accepted:  # noqa: ARG001 - checked, and that is all
        return Accepted(id=secrets.token_hex(12))

    return app


def insert_and_send() -> FastAPI:
    """The home-made way to be durable: a row, then `send_task` with the broker's confirm."""
    engine = create_async_engine(os.environ["RIVAL_DATABASE"], pool_size=8)
    app = FastAPI()
    tasks = celery()

    @app.post("/v1/jobs", status_code=202)
    async def submit(job: Job) -> Accepted:
        job_id = secrets.token_hex(12)
        async with engine.begin() as connection:
            await connection.execute(
                text("INSERT INTO rival_jobs (id, body) VALUES (:id, :body)"),
                {"id": job_id, "body": job.model_dump_json()},
            )
        await run_in_threadpool(tasks.send_task, "rival.generate", [job_id], task_id=job_id)
        return Accepted(id=job_id)

    return app


def celery() -> Celery:
    app = Celery("rival", broker=os.environ["RIVAL_BROKER"], set_as_current=False)
    app.conf.update(
        task_default_queue="rival",
        task_ignore_result=True,
        broker_transport_options={"confirm_publish": True},
        broker_pool_limit=40,  # as many as the front has threads
        task_serializer="json",
    )
    return app


def delay() -> FastAPI:
    """Plain Celery: `.delay()` in the front, the result in its Redis backend."""
    app = FastAPI()
    task = prefork().tasks["rival.generate"]

    @app.post("/v1/jobs", status_code=202)
    async def submit(job: Job) -> Accepted:
        sent = await run_in_threadpool(task.delay, job.model_dump())
        return Accepted(id=sent.id)

    return app


def prefork() -> Celery:
    """The worker of `delay`: Celery's defaults, two processes, one engine in each."""
    app = Celery(
        "rival", broker=os.environ["RIVAL_BROKER"], backend=os.environ["RIVAL_REDIS"], set_as_current=False
    )
    app.conf.update(
        task_default_queue="rival-prefork",
        worker_concurrency=2,
        result_backend_transport_options={"global_keyprefix": os.environ["RIVAL_PREFIX"]},
    )

    @app.task(name="rival.generate")
    def generate(job: dict[str, Any]) -> dict[str, Any]:
        loop, engine = _engine_of_this_process()
        return loop.run_until_complete(_answer(engine, job))

    return app


@cache
def _engine_of_this_process() -> tuple[asyncio.AbstractEventLoop, SimulatedEngine]:
    loop, engine = asyncio.new_event_loop(), SimulatedEngine(slots=PLACES)
    loop.run_until_complete(engine.start())
    return loop, engine


def aio_pika_front() -> FastAPI:
    """Publish and forget to wait: no database, no lease, no confirm."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        connection = await aio_pika.connect(os.environ["RIVAL_BROKER"])
        channel = await connection.channel(publisher_confirms=False)
        await channel.declare_queue("rival-aio", durable=True)
        app.state.exchange = channel.default_exchange
        yield
        await connection.close()

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/jobs", status_code=202)
    async def submit(job: Job) -> Accepted:
        job_id = secrets.token_hex(12)
        body = orjson.dumps({"id": job_id, **job.model_dump()})
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await app.state.exchange.publish(message, routing_key="rival-aio")
        return Accepted(id=job_id)

    return app


async def consume() -> None:
    """The consumer of `aio_pika_front`: the answer to Redis, then the acknowledgement. Until it is ended."""
    redis = Redis.from_url(os.environ["RIVAL_REDIS"])
    prefix = os.environ["RIVAL_PREFIX"]
    engine = SimulatedEngine(slots=PLACES)
    await engine.start()
    connection = await aio_pika.connect(os.environ["RIVAL_BROKER"])
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=256)
    queue = await channel.declare_queue("rival-aio", durable=True)

    async def run(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        job = orjson.loads(message.body)
        answer = await _answer(engine, job)
        await redis.set(f"{prefix}{job['id']}", orjson.dumps(answer), ex=3600)
        await message.ack()

    await queue.consume(run)
    await asyncio.Event().wait()


async def _answer(engine: SimulatedEngine, job: dict[str, Any]) -> dict[str, Any]:
    prompt = Prompt(
        secrets.token_hex(8),
        messages=tuple(job["messages"]),
        sampling=Sampling(max_tokens=job["max_tokens"]),
    )
    text = [delta.text async for delta in engine.generate(prompt)]
    return {"text": "".join(text)}


if __name__ == "__main__":
    asyncio.run(consume())
