"""Events through the in-process Redis and through a real one: written by a worker, read by an API."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from core.errors import EventsUnavailable
from core.settings import RedisSettings
from models.lifecycle import Status
from models.views import JobView
from queues.cancel_notices import CancelListener, publish_cancels
from queues.event_reader import EventReader, Subscription
from queues.event_writer import EventWriter
from queues.events import Event
from queues.hot_jobs import HotJobs
from queues.redis import Batch, open_redis
from tests.platform_fixtures import PROFILES

PATIENCE = 10.0


@pytest.fixture
def namespace() -> str:
    return f"t{secrets.token_hex(6)}"


@pytest.fixture(params=PROFILES)
def redis_settings(request: pytest.FixtureRequest) -> RedisSettings:
    if request.param == "embedded":
        return RedisSettings(url="memory://")
    return RedisSettings(url=request.getfixturevalue("services").redis_url)


@pytest.fixture
async def client(redis_settings: RedisSettings, namespace: str) -> AsyncIterator[Redis]:
    opened = open_redis(redis_settings, namespace)
    yield opened
    keys = [key async for key in opened.scan_iter(f"{namespace}:*")]
    if keys:
        await opened.delete(*keys)
    await opened.aclose(close_connection_pool=True)


@pytest.fixture
async def writer(client: Redis, redis_settings: RedisSettings, namespace: str) -> AsyncIterator[EventWriter]:
    made = EventWriter(
        client, namespace=namespace, settings=redis_settings, flush_every=timedelta(milliseconds=5)
    )
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def reader(client: Redis, namespace: str) -> AsyncIterator[EventReader]:
    made = EventReader(client, namespace=namespace)
    await made.start()
    yield made
    await made.close()


def view(job_id: str = "job_1", **fields: Any) -> JobView:
    values: dict[str, Any] = {
        "id": job_id,
        "tenant_id": "t",
        "model": "m",
        "service_class": "standard",
        "priority": 5,
        "status": Status.COMPLETED,
        "version": 3,
        "created_at": datetime.now(UTC),
        "output": {"text": "Hello."},
    }
    return JobView(**values | fields)


async def following(subscription: Subscription, kind: str) -> list[Event]:
    """Everything up to the first event of that kind."""
    events: list[Event] = []
    while not events or events[-1].kind != kind:
        event = await subscription.next(PATIENCE)
        assert event is not None
        events.append(event)
    return events


def text_of(events: list[Event]) -> str:
    return "".join(event.data["text"] for event in events if event.kind == "token")


async def test_consecutive_tokens_arrive_merged_and_in_order(
    writer: EventWriter, reader: EventReader
) -> None:
    async with reader.subscribe("job_1") as subscription:
        for index in range(50):
            writer.token("job_1", attempt=1, index=index, text=f"{index},")
        writer.finished(view())
        events = await following(subscription, "done")

    assert text_of(events) == "".join(f"{index}," for index in range(50))
    assert len(events) < 50
    assert sum(event.data["count"] for event in events[:-1]) == 50


async def test_only_further_tokens_of_a_job_gather(
    client: Redis, reader: EventReader, redis_settings: RedisSettings, namespace: str
) -> None:
    writer = EventWriter(client, namespace=namespace, settings=redis_settings, flush_every=timedelta(hours=1))
    await writer.start()
    async with reader.subscribe("job_1") as subscription, reader.subscribe("job_2") as other:
        writer.token("job_1", attempt=1, index=0, text="a")
        first = await subscription.next(PATIENCE)
        writer.token("job_1", attempt=1, index=1, text="b")
        writer.token("job_2", attempt=1, index=0, text="A")
        first_of_other = await other.next(PATIENCE)
        writer.token("job_1", attempt=1, index=2, text="c")
        writer.finished(view())
        rest = await following(subscription, "done")
    await writer.close()

    assert first is not None
    assert first.data["text"] == "a"
    assert first_of_other is not None
    assert first_of_other.data["text"] == "A"
    assert [event.data.get("text") for event in rest] == ["bc", None]


async def test_a_new_attempt_is_not_merged_with_the_old(writer: EventWriter, reader: EventReader) -> None:
    async with reader.subscribe("job_1") as subscription:
        writer.token("job_1", attempt=1, index=0, text="a")
        writer.emit("job_1", "reset", {"attempt": 2})
        writer.token("job_1", attempt=2, index=0, text="b")
        writer.finished(view())
        events = await following(subscription, "done")

    assert [event.kind for event in events] == ["token", "reset", "token", "done"]


async def test_a_thought_after_text_is_an_event_of_its_own(writer: EventWriter, reader: EventReader) -> None:
    async with reader.subscribe("job_1") as subscription:
        writer.token("job_1", attempt=1, index=0, text="", reasoning="hm")
        writer.token("job_1", attempt=1, index=1, text="a")
        writer.token("job_1", attempt=1, index=2, text="", reasoning="oh")
        writer.finished(view())
        events = await following(subscription, "done")

    assert [event.data.get("reasoning") for event in events[:2]] == ["hm", "oh"]


async def test_a_reader_goes_on_after_the_event_it_knows(writer: EventWriter, reader: EventReader) -> None:
    for attempt in range(1, 4):
        writer.token("job_1", attempt=attempt, index=0, text=str(attempt))
    writer.finished(view())
    async with reader.subscribe("job_1") as subscription:
        events = await following(subscription, "done")

    async with reader.subscribe("job_1", events[0].id) as subscription:
        rest = await following(subscription, "done")

    assert rest == events[1:]


async def test_two_listeners_of_one_job_each_get_everything(writer: EventWriter, reader: EventReader) -> None:
    async with reader.subscribe("job_1") as early:
        writer.token("job_1", attempt=1, index=0, text="a")
        first = await following(early, "token")
        async with reader.subscribe("job_1") as late:
            writer.finished(view())
            assert text_of(await following(late, "done")) == "a"
        assert text_of(first + await following(early, "done")) == "a"


async def test_a_slow_listener_loses_nothing(writer: EventWriter, reader: EventReader) -> None:
    async with reader.subscribe("job_1") as subscription:
        for attempt in range(1, 1001):
            writer.token("job_1", attempt=attempt, index=0, text=".")
        writer.finished(view())
        assert await reader.wait_finished("job_1", PATIENCE)

        events = await following(subscription, "done")

    assert len(events) == 1001


async def test_waiting_ends_with_done(writer: EventWriter, reader: EventReader) -> None:
    waiting = [asyncio.create_task(reader.wait_finished("job_1", PATIENCE)) for _ in range(3)]
    writer.token("job_1", attempt=1, index=0, text="a")
    writer.finished(view())

    assert await asyncio.gather(*waiting) == [True, True, True]
    assert await reader.wait_finished("job_1", PATIENCE)
    assert not await reader.wait_finished("job_2", 0.01)


async def test_ten_thousand_idle_listeners_do_not_hide_one_that_is_poked(
    writer: EventWriter, reader: EventReader
) -> None:
    idle = [asyncio.create_task(reader.wait_finished(f"job_idle{n}", 60)) for n in range(10_000)]
    poked = asyncio.create_task(reader.wait_finished("job_1", PATIENCE))
    await asyncio.sleep(0)
    writer.finished(view())

    assert await poked
    assert not any(task.done() for task in idle)
    for task in idle:
        task.cancel()
    await asyncio.wait(idle)


async def test_the_hot_copy_is_the_view(
    writer: EventWriter, reader: EventReader, client: Redis, namespace: str
) -> None:
    hot = HotJobs(client, namespace=namespace, result_ttl=timedelta(hours=1))
    finished = view(expires_at=datetime.now(UTC) + timedelta(seconds=30))
    writer.finished(finished)
    assert await reader.wait_finished(finished.id, PATIENCE)

    assert await hot.get(finished.id) == finished
    assert await client.ttl(f"{namespace}:result:{finished.id}") <= 30


async def test_a_late_answer_does_not_replace_a_tombstone(
    writer: EventWriter, reader: EventReader, client: Redis, namespace: str
) -> None:
    hot = HotJobs(client, namespace=namespace, result_ttl=timedelta(hours=1))
    tombstone = view(output=None, erased_at=datetime.now(UTC))
    await hot.bury(tombstone)

    writer.finished(view())
    writer.finished(view("job_2"))
    assert await reader.wait_finished("job_2", PATIENCE)

    assert await hot.get("job_1") == tombstone


async def test_a_cancel_reaches_every_worker(client: Redis, namespace: str) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listeners = [CancelListener(client, namespace=namespace, on_cancel=heard.put_nowait) for _ in range(2)]
    for listener in listeners:
        await listener.start()
        await listener.listening.wait()

    await publish_cancels(client, namespace, ["job_1", "job_2"])

    async with asyncio.timeout(PATIENCE):
        assert sorted([await heard.get() for _ in range(4)]) == ["job_1", "job_1", "job_2", "job_2"]
    for listener in listeners:
        await listener.close()


async def test_clients_on_other_loops_share_one_redis(
    redis_settings: RedisSettings, namespace: str, client: Redis, reader: EventReader
) -> None:
    async def write() -> None:
        other = open_redis(redis_settings, namespace)
        writer = EventWriter(other, namespace=namespace, settings=redis_settings, flush_every=timedelta())
        await writer.start()
        writer.finished(view())
        await writer.close()
        await other.aclose(close_connection_pool=True)

    waiting = asyncio.create_task(reader.wait_finished("job_1", PATIENCE))
    await asyncio.to_thread(asyncio.run, write())

    assert await waiting


class TestOutage:
    """A Redis that refuses, and comes back."""

    @pytest.fixture
    def breaker(self, monkeypatch: pytest.MonkeyPatch, client: Redis) -> Callable[[bool], None]:
        execute = type(client.pipeline()).execute
        state = {"down": False}

        async def maybe(pipeline: Any, *args: Any, **kwargs: Any) -> Any:
            if state["down"]:
                raise RedisConnectionError("down")
            return await execute(pipeline, *args, **kwargs)

        monkeypatch.setattr(type(client.pipeline()), "execute", maybe)
        return lambda down: state.update(down=down)

    async def test_a_writer_drops_counts_and_recovers(
        self, writer: EventWriter, reader: EventReader, breaker: Callable[[bool], None]
    ) -> None:
        breaker(True)
        for index in range(10):
            writer.token("job_0", attempt=1, index=index, text="x")
        await writer.flush()
        breaker(False)

        writer.finished(view())

        assert await reader.wait_finished("job_1", PATIENCE)

    async def test_readers_are_told(
        self, writer: EventWriter, reader: EventReader, breaker: Callable[[bool], None]
    ) -> None:
        breaker(True)

        async with reader.subscribe("job_1") as subscription:
            with pytest.raises(EventsUnavailable):
                await subscription.next(PATIENCE)
        with pytest.raises(EventsUnavailable):
            await reader.wait_finished("job_1", PATIENCE)


async def test_a_dead_address_is_no_error_for_the_writer_and_a_clear_one_for_the_reader(
    namespace: str,
) -> None:
    settings = RedisSettings(url="redis://127.0.0.1:1/0")
    nobody = open_redis(settings, namespace)
    writer = EventWriter(nobody, namespace=namespace, settings=settings, flush_every=timedelta())
    reader = EventReader(nobody, namespace=namespace)
    await writer.start()
    await reader.start()
    writer.finished(view())
    await writer.close()

    with pytest.raises(EventsUnavailable):
        await reader.wait_finished("job_1", 1)
    assert writer.dropped == 1
    await reader.close()
    await nobody.aclose(close_connection_pool=True)


async def test_one_command_that_fails_keeps_none_of_the_others_from_running(
    client: Redis, namespace: str
) -> None:
    text, other = f"{namespace}:text", f"{namespace}:other"

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await Batch(client).run(
            [("SET", text, "größe"), ("XADD", text, "*", "kind", "token"), ("SET", other, "here")]
        )

    assert await client.get(text) == "größe".encode()
    assert await client.get(other) == b"here"
