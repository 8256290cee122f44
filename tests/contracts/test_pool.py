import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from queue import SimpleQueue
from time import monotonic
from typing import Any

import pytest
from celery.worker import state
from kombu.connection import Connection

from core.errors import Unavailable
from core.settings import BrokerSettings, Settings, WorkerSettings
from queues.app import celery_app
from queues.messages import JobEnvelope
from queues.publisher import open_publisher
from queues.topology import Topology
from tests.contracts.brokers import KINDS, broker_settings
from tests.fakes.holding_receiver import HoldingReceiver
from workers.embedded import EmbeddedWorker

SECONDS = 20
GRACE = timedelta(seconds=SECONDS)


class Bench:
    """A worker with two slots and a prefetch of two per slot and queue, on one broker."""

    def __init__(self, broker: BrokerSettings) -> None:
        settings = Settings(broker=broker, worker=WorkerSettings(prefetch_multiplier=2, grace=GRACE))
        self.broker = broker
        self.app = celery_app(settings, ["tiny"])
        self.publisher = open_publisher(broker, ["tiny"])
        self.topology = Topology(broker)
        self.workers: list[EmbeddedWorker] = []
        self.publish()

    def worker(self, receiver: HoldingReceiver, *, node: str = "one") -> EmbeddedWorker:
        self.app.receiver_factory = lambda: receiver
        worker = EmbeddedWorker(self.app, hostname=f"{node}@{self.broker.namespace}", concurrency=2)
        self.workers.append(worker)
        worker.start(GRACE)
        return worker

    def publish(self, *names: str, service_class: str = "standard") -> None:
        jobs = [
            JobEnvelope(
                id=name,
                generation=0,
                model="tiny",
                service_class=service_class,
                tenant="acme",
                priority=5,
                cost=10,
                arrived=1.0,
            )
            for name in names
        ]
        assert asyncio.run(self.publisher.publish(jobs)) == set(names)

    def depth(self, service_class: str = "standard") -> int:
        return asyncio.run(self.publisher.depths(["tiny"]))["tiny", service_class]

    def close(self) -> None:
        for worker in self.workers:
            worker.stop(timedelta(0))
        self.app.close()
        asyncio.run(self.publisher.close())


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    yield from open_bench(request.param)


@pytest.fixture
def amqp_bench() -> Iterator[Bench]:
    yield from open_bench("rabbitmq")


def open_bench(kind: str) -> Iterator[Bench]:
    with broker_settings(kind) as settings:
        bench = Bench(settings)
        yield bench
        bench.close()


def test_a_free_slot_is_filled_at_once(bench: Bench) -> None:
    receiver = HoldingReceiver(slots=2)
    bench.worker(receiver)

    bench.publish("a", "b", "c", "d")
    first, second = receiver.begun.get(timeout=SECONDS), receiver.begun.get(timeout=SECONDS)
    receiver.finish(first)
    third = receiver.begun.get(timeout=SECONDS)

    assert [first.task_id, second.task_id, third.task_id] == ["a", "b", "c"]


def test_a_job_is_acknowledged_only_when_it_is_settled(bench: Bench) -> None:
    receiver = HoldingReceiver(slots=2)
    worker = bench.worker(receiver)
    bench.publish("done", "unfinished")
    done, _ = receiver.begun.get(timeout=SECONDS), receiver.begun.get(timeout=SECONDS)

    receiver.finish(done)
    worker.stop(timedelta(0))

    assert bench.depth() == 1
    successor = HoldingReceiver(slots=2)
    bench.worker(successor)
    again = successor.begun.get(timeout=SECONDS)
    assert (again.task_id, again.redelivered) == ("unfinished", True)


def test_a_drain_finishes_what_runs_and_hands_back_the_rest(bench: Bench) -> None:
    receiver = HoldingReceiver(slots=2)
    worker = bench.worker(receiver)
    bench.publish("a", "b", "c", "d")
    running = [receiver.begun.get(timeout=SECONDS) for _ in range(2)]
    for _ in range(4):
        receiver.taken.get(timeout=SECONDS)

    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    assert receiver.is_draining.wait(SECONDS)
    for delivery in running:
        receiver.finish(delivery)
    stopping.join(SECONDS)

    assert not worker.is_running
    assert receiver.is_closed
    assert bench.depth() == 2


def test_workers_follow_one_another_in_one_process(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        receiver = HoldingReceiver(slots=1)
        worker = bench.worker(receiver)
        bench.publish(name)
        receiver.finish(receiver.begun.get(timeout=SECONDS))
        worker.stop()

    assert bench.depth() == 0
    assert not state.requests
    assert state.should_stop is None


def test_each_class_has_a_prefetch_of_its_own(bench: Bench) -> None:
    receiver = HoldingReceiver(slots=0)
    bench.publish(*(f"bulk{number}" for number in range(10)), service_class="bulk")
    bench.publish(*(f"premium{number}" for number in range(10)), service_class="premium")

    bench.worker(receiver)
    for _ in range(8):
        receiver.taken.get(timeout=SECONDS)

    assert (bench.depth("bulk"), bench.depth("premium")) == (6, 6)


def test_a_revoke_with_terminate_reaches_the_receiver(bench: Bench) -> None:
    receiver = HoldingReceiver(slots=1)
    worker = bench.worker(receiver)
    bench.publish("running", "waiting")
    receiver.begun.get(timeout=SECONDS)
    for _ in range(2):
        receiver.taken.get(timeout=SECONDS)

    bench.app.control.revoke(["waiting", "running"], terminate=True)

    assert {receiver.cancelled.get(timeout=SECONDS) for _ in range(2)} == {"running", "waiting"}
    worker.stop()
    assert bench.depth() == 0


def test_a_job_published_twice_runs_once_in_one_worker(bench: Bench) -> None:
    receiver = HoldingReceiver(slots=2)
    worker = bench.worker(receiver)
    bench.publish("a")
    delivery = receiver.begun.get(timeout=SECONDS)

    bench.publish("a")
    bench.publish("marker")
    assert receiver.begun.get(timeout=SECONDS).task_id == "marker"
    receiver.finish(delivery)
    worker.stop(timedelta(0))

    assert receiver.begun.empty()
    assert bench.depth() == 1  # The marker; nothing of the other two.


def test_other_tasks_run_on_threads(bench: Bench) -> None:
    ran = threading.Event()

    @bench.app.task(name="test.mark", shared=False)  # type: ignore[untyped-decorator]
    def mark(number: int) -> None:
        if number == 4:
            ran.set()

    bench.worker(HoldingReceiver(slots=1))

    bench.app.send_task(mark.name, (4,), queue=bench.topology.queue("tiny", "bulk"))

    assert ran.wait(SECONDS)


def test_a_message_of_a_newer_schema_goes_to_the_dead_letters(bench: Bench) -> None:
    receiver = HoldingReceiver(slots=1)
    worker = bench.worker(receiver)
    with Connection(bench.broker.url.get_secret_value()) as connection:
        bench.topology.dead(connection.channel()).declare()  # as a relay does before the first message

    bench.app.send_task(
        "penstock.generate", kwargs={"job": {"schema": 99}}, queue=bench.topology.queue("tiny", "standard")
    )
    bench.publish("marker")
    receiver.finish(receiver.begun.get(timeout=SECONDS))
    worker.stop()

    with Connection(bench.broker.url.get_secret_value()) as connection:
        assert connection.channel().basic_get(bench.topology.dead.name, no_ack=True) is not None


def test_a_receiver_that_cannot_start_stops_the_worker(bench: Bench) -> None:
    receiver = HoldingReceiver(slots=1, failure=RuntimeError("no such model"))

    with pytest.raises(Unavailable):
        bench.worker(receiver)

    assert not bench.workers[0].is_running


def test_flower_sees_every_step(bench: Bench) -> None:
    events: SimpleQueue[tuple[str, str]] = SimpleQueue()
    receiver = HoldingReceiver(slots=2)
    stop = watch(bench, lambda event: events.put((event["type"], event.get("uuid", ""))))
    worker = bench.worker(receiver)

    bench.publish("good", "bad")
    receiver.finish(receiver.begun.get(timeout=SECONDS))
    receiver.fail(receiver.begun.get(timeout=SECONDS))
    worker.stop()
    seen: dict[str, list[str]] = {"good": [], "bad": []}
    while (event := events.get(timeout=SECONDS))[0] != "worker-offline":
        seen.setdefault(event[1], []).append(event[0])
    for _ in range(6 - len(seen["good"]) - len(seen["bad"])):
        kind, job = events.get(timeout=SECONDS)
        seen[job].append(kind)
    stop()

    assert seen["good"] == ["task-received", "task-started", "task-succeeded"]
    assert seen["bad"] == ["task-received", "task-started", "task-failed"]


def test_inspect_shows_jobs_and_the_receiver(bench: Bench) -> None:
    receiver = HoldingReceiver(slots=1)
    bench.worker(receiver)
    bench.publish("a")
    receiver.begun.get(timeout=SECONDS)

    inspect = bench.app.control.inspect(timeout=SECONDS, limit=1)

    # It has begun on the loop thread; Celery learns of it on the hub thread, a moment later.
    end = monotonic() + SECONDS
    while _active(inspect) != ["a"]:
        assert monotonic() < end
    [stats] = inspect.stats().values()
    assert (stats["pool"]["held"], stats["pool"]["slots"], stats["prefetch_count"]) == (1, 1, 4)


def _active(inspect: Any) -> list[str]:
    [active] = inspect.active().values()
    return [request["id"] for request in active]


@pytest.mark.services
def test_a_lost_connection_runs_nothing_twice(amqp_bench: Bench) -> None:
    bench, receiver = amqp_bench, HoldingReceiver(slots=1)
    worker = bench.worker(receiver)
    bench.publish("running", "waiting")
    running = receiver.begun.get(timeout=SECONDS)
    for _ in range(2):
        receiver.taken.get(timeout=SECONDS)

    cut(worker)
    assert receiver.forgotten.get(timeout=SECONDS) == "waiting"
    assert receiver.taken.get(timeout=SECONDS).task_id == "waiting"  # Delivered again, after the running one.

    assert running.redelivered
    assert receiver.begun.empty()
    receiver.finish(running)
    receiver.finish(receiver.begun.get(timeout=SECONDS))
    worker.stop()
    assert bench.depth() == 0


def test_what_fails_on_a_dead_connection_does_not_take_the_rest_with_it(amqp_bench: Bench) -> None:
    bench, receiver = amqp_bench, HoldingReceiver(slots=1)
    worker = bench.worker(receiver)
    bench.publish("running")
    running = receiver.begun.get(timeout=SECONDS)
    consumer, outbox = worker._controller.consumer, worker._controller.pool._outbox

    def die() -> None:
        # What is ready runs in no order: one of these comes first, nearly always.
        for _ in range(100):
            consumer.hub.call_soon(reset_by_peer)
        receiver.finish(running)
        assert outbox.filled.wait(SECONDS)
        reset_by_peer()

    consumer.call_soon(die)
    names = [f"later{number}" for number in range(6)]  # more than may be unacknowledged
    bench.publish(*names)

    finished: list[str] = []
    while not set(names) <= set(finished):
        delivery = receiver.begun.get(timeout=SECONDS)
        finished.append(delivery.task_id)
        receiver.finish(delivery)
    worker.stop()
    assert bench.depth() == 0


def reset_by_peer() -> None:
    raise ConnectionResetError


def cut(worker: EmbeddedWorker) -> None:
    """Break the worker's connection as a broken network would."""
    connection = worker._controller.consumer.connection.connection
    connection.transport.sock.shutdown(socket.SHUT_RDWR)


def watch(bench: Bench, see: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
    """Capture Celery's events until the returned function is called."""
    ready = threading.Event()
    connection = bench.app.connection_for_read()
    receiver = bench.app.events.Receiver(connection, handlers={"*": see})
    receiver.on_consume_ready = lambda *_, **__: ready.set()
    thread = threading.Thread(
        target=receiver.capture, kwargs={"limit": None, "timeout": None, "wakeup": False}, daemon=True
    )
    thread.start()
    assert ready.wait(SECONDS)

    def stop() -> None:
        receiver.should_stop = True
        thread.join(SECONDS)
        connection.release()

    return stop
