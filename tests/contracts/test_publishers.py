import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any

import orjson
import pytest
from kombu.connection import Connection
from pydantic import SecretStr

from core.errors import BrokerUnavailable
from core.settings import BrokerSettings
from queues.confirms import Confirms
from queues.messages import JobEnvelope, decode, identity, task_id
from queues.publisher import AmqpPublisher, KombuPublisher, Publisher, open_publisher
from queues.topology import Topology
from tests.contracts.brokers import KINDS, MODELS, broker_settings


def envelope(name: str, **changes: Any) -> JobEnvelope:
    fields: dict[str, Any] = {
        "id": f"job_{name}",
        "generation": 0,
        "model": "tiny",
        "service_class": "standard",
        "tenant": "acme",
        "priority": 5,
        "cost": 10,
        "arrived": 1.0,
    }
    return JobEnvelope(**{**fields, **changes})


@pytest.fixture(params=KINDS)
def settings(request: pytest.FixtureRequest) -> Iterator[BrokerSettings]:
    with broker_settings(request.param, max_length=20) as settings:
        yield settings


@pytest.fixture
async def publisher(settings: BrokerSettings) -> AsyncIterator[Publisher]:
    publisher = open_publisher(settings, MODELS)
    yield publisher
    await publisher.close()


@contextmanager
def channel(settings: BrokerSettings) -> Iterator[Any]:
    with Connection(settings.url.get_secret_value()) as connection:
        yield connection.channel()


def get(settings: BrokerSettings, service_class: str = "standard") -> list[Any]:
    name = Topology(settings).queue_name("tiny", service_class)
    with channel(settings) as opened:
        return list(iter(lambda: opened.basic_get(name, no_ack=True), None))


async def test_every_published_job_is_confirmed_and_counted(publisher: Publisher) -> None:
    confirmed = await publisher.publish([envelope(str(number)) for number in range(10)])

    assert confirmed == {f"job_{number}" for number in range(10)}
    depths = await publisher.depths(["tiny"])
    assert depths == {("tiny", "premium"): 0, ("tiny", "standard"): 10, ("tiny", "bulk"): 0}


async def test_a_broker_that_is_there_is_reached(publisher: Publisher) -> None:
    await publisher.reach()
    await publisher.reach()


async def test_nothing_to_publish_is_nothing(publisher: Publisher) -> None:
    assert await publisher.publish([]) == set()


async def test_the_message_carries_the_envelope(publisher: Publisher, settings: BrokerSettings) -> None:
    sent = envelope("1", generation=3, service_class="premium", deadline=9.5)

    confirmed = await publisher.publish([sent])

    [received] = [decode(orjson.loads(message.body)[1]) for message in get(settings, "premium")]
    assert received == sent
    assert confirmed == {task_id(sent)} == {"job_1.3"}


async def test_a_queue_gives_the_highest_priority_first_and_then_the_oldest(
    publisher: Publisher, settings: BrokerSettings
) -> None:
    await publisher.publish(
        [envelope("low", priority=0), envelope("a"), envelope("b"), envelope("high", priority=9)]
    )

    order = [message.properties["correlation_id"] for message in get(settings)]
    assert order == ["job_high", "job_a", "job_b", "job_low"]


async def test_a_full_queue_confirms_no_more_than_it_holds(publisher: Publisher) -> None:
    confirmed = await publisher.publish([envelope(str(number)) for number in range(30)])

    assert len(confirmed) == 20
    assert (await publisher.depths(["tiny"]))["tiny", "standard"] == 20


async def test_a_job_that_no_queue_takes_is_not_confirmed(publisher: Publisher) -> None:
    confirmed = await publisher.publish([envelope("lost", model="absent"), envelope("kept")])

    assert confirmed == {"job_kept"}


async def test_models_with_a_slash_have_queues(publisher: Publisher) -> None:
    await publisher.publish([envelope("1", model="org/large")])

    assert (await publisher.depths(MODELS))["org/large", "standard"] == 1


async def test_a_rejected_message_is_found_among_the_dead(
    publisher: Publisher, settings: BrokerSettings
) -> None:
    await publisher.publish([envelope("poison")])
    topology = Topology(settings)

    with channel(settings) as opened:
        message = opened.basic_get(topology.queue_name("tiny", "standard"))
        opened.basic_reject(message.delivery_tag, requeue=False)
    with channel(settings) as opened:
        dead = opened.basic_get(topology.dead.name, no_ack=True)

    assert dead is not None
    assert dead.properties["correlation_id"] == "job_poison"


async def test_an_unacknowledged_message_comes_back_in_its_place(
    publisher: Publisher, settings: BrokerSettings
) -> None:
    await publisher.publish([envelope("first"), envelope("second")])

    with channel(settings) as opened:
        opened.basic_get(Topology(settings).queue_name("tiny", "standard"))

    messages = get(settings)
    assert [message.properties["correlation_id"] for message in messages] == ["job_first", "job_second"]
    assert messages[0].delivery_info["redelivered"]


async def test_topology_can_be_declared_twice(settings: BrokerSettings, publisher: Publisher) -> None:
    await publisher.publish([envelope("1")])
    second = open_publisher(settings, MODELS)

    assert await second.publish([envelope("2")]) == {"job_2"}

    await second.close()


@pytest.mark.services
async def test_a_lost_connection_is_reported_and_then_replaced() -> None:
    with broker_settings("rabbitmq") as settings:
        publisher = AmqpPublisher(settings, MODELS)
        await publisher.publish([envelope("1")])
        publisher._connection.transport.sock.shutdown(socket.SHUT_RDWR)

        with pytest.raises(BrokerUnavailable):
            await publisher.publish([envelope("2")])
        publisher._not_before = 0.0

        assert await publisher.publish([envelope("2")]) == {"job_2"}
        await publisher.close()


@pytest.mark.services
async def test_a_channel_that_failed_in_any_way_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a connection goes down, its library may stumble over itself instead of saying so."""
    with broker_settings("rabbitmq") as settings:
        publisher = AmqpPublisher(settings, MODELS)
        await publisher.publish([envelope("1")])
        monkeypatch.setattr(publisher._connection, "frame_max", None)

        with pytest.raises(TypeError):
            await publisher.publish([envelope("2")])
        publisher._not_before = 0.0

        assert await publisher.publish([envelope("2")]) == {"job_2"}
        await publisher.close()


async def test_a_broker_that_is_away_is_reported_and_not_asked_again_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"amqp://127.0.0.1:{taken.getsockname()[1]}//"
        publisher = AmqpPublisher(BrokerSettings(url=SecretStr(url)), MODELS)

        with pytest.raises(BrokerUnavailable, match="cannot be reached"):
            await publisher.reach()
        with pytest.raises(BrokerUnavailable, match="next attempt"):
            await publisher.publish([envelope("1")])
        with pytest.raises(BrokerUnavailable, match="next attempt"):
            await publisher.depths(["tiny"])

        await publisher.close()


async def test_a_silent_broker_does_not_hold_the_caller() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}//"
        settings = BrokerSettings.model_validate(
            {"url": url, "connect_timeout": "200ms", "confirm_timeout": "200ms"}
        )
        publisher = AmqpPublisher(settings, MODELS)

        with pytest.raises(BrokerUnavailable):
            await publisher.publish([envelope("1")])

        await publisher.close()


@pytest.mark.services
async def test_a_broker_that_stops_confirming_is_reported_in_time() -> None:
    with broker_settings("rabbitmq") as settings:
        async with stalling_proxy(settings) as (url, flowing):
            behind = settings.model_copy(
                update={"url": SecretStr(url), "confirm_timeout": timedelta(milliseconds=300)}
            )
            publisher = AmqpPublisher(behind, MODELS)
            assert await publisher.publish([envelope("1")]) == {"job_1"}
            flowing.clear()

            with pytest.raises(BrokerUnavailable, match="confirmed nothing"):
                await publisher.publish([envelope("2")])
            publisher._not_before = 0.0
            with pytest.raises(BrokerUnavailable):
                await publisher.depths(["tiny"])

            await publisher.close()


@asynccontextmanager
async def stalling_proxy(settings: BrokerSettings) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """An address in front of the broker; nothing passes while the event is clear."""
    broker = Connection(settings.url.get_secret_value())
    flowing = asyncio.Event()
    flowing.set()
    writers: list[asyncio.StreamWriter] = []

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await flowing.wait()
            target.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection(broker.hostname, broker.port or 5672)
        writers.extend((downstream, writer))
        await asyncio.gather(pump(reader, downstream), pump(upstream, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user = f"{broker.userid or 'guest'}:{broker.password or 'guest'}"
    yield f"amqp://{user}@127.0.0.1:{port}/{broker.virtual_host}", flowing
    flowing.set()
    server.close()
    for writer in writers:
        writer.close()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


def test_a_confirm_of_many_settles_all_before_it() -> None:
    confirms = Confirms()
    for number in range(5):
        confirms.published(str(number))

    confirms.nacked(2, multiple=False)
    confirms.acked(4, multiple=True)

    assert confirms.confirmed == {"0", "2", "3"}
    assert list(confirms.waiting.values()) == ["4"]


async def test_a_waiting_consumer_is_woken_by_a_publish() -> None:
    with broker_settings("embedded") as settings:
        publisher = KombuPublisher(settings, MODELS)
        await publisher.publish([])
        got = threading.Event()
        with Connection(settings.url.get_secret_value()) as connection:
            consumer = connection.Consumer(
                Topology(settings).queues(["tiny"]), callbacks=[lambda _, message: (message.ack(), got.set())]
            )
            consumer.consume()
            thread = threading.Thread(target=connection.drain_events, kwargs={"timeout": 30})
            thread.start()

            await publisher.publish([envelope("1")])

            assert got.wait(10)
            thread.join(10)
        await publisher.close()


@pytest.mark.services
async def test_what_a_consumer_refuses_is_dead_until_it_is_buried() -> None:
    with broker_settings("rabbitmq") as settings:
        publisher = open_publisher(settings, MODELS)
        await publisher.publish([envelope("refused"), envelope("kept")])
        with Connection(settings.url.get_secret_value()) as connection:
            channel = connection.channel()
            queue = Topology(settings).queue("tiny", "standard")(channel)
            queue.get().reject()
            queue.get().requeue()
        # The broker moves it behind our back.
        while not (found := await publisher.dead(10)):
            pass
        await publisher.bury(found)

        assert [identity(message.body) for message in found] == [("job_refused", 0)]
        assert await publisher.dead(10) == []
        await publisher.close()


@pytest.mark.services
async def test_what_was_not_buried_comes_again_on_the_next_connection() -> None:
    with broker_settings("rabbitmq") as settings:
        first, second = open_publisher(settings, MODELS), open_publisher(settings, MODELS)
        await first.publish([envelope("refused")])
        with Connection(settings.url.get_secret_value()) as connection:
            Topology(settings).queue("tiny", "standard")(connection.channel()).get().reject()
        while not (found := await first.dead(10)):
            pass
        await first.close()
        while not (again := await second.dead(10)):
            pass
        await second.bury(found)  # tags of another connection: nothing happens
        await second.bury(again)

        assert [message.body for message in again] == [message.body for message in found]
        await second.close()
