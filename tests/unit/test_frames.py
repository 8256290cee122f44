"""What is gathered is what py-amqp reads, and the broker's end of it."""

from typing import Any

import amqp
import pytest
from amqp.serialization import loads

from queues.frames import Frames
from queues.messages import DeliveryEnvelope, Envelope, JobEnvelope, TaskMessage, encode

EXCHANGE, ROUTE, CHANNEL = "penstock.jobs", "org/large.premium", 3
METHOD, HEADER, BODY = 1, 2, 3

JOB = JobEnvelope(
    id="job_1",
    generation=2,
    model="org/large",
    service_class="premium",
    tenant="acm\u00e9",
    priority=9,
    cost=300,
    arrived=1_900_000_000.5,
    trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)


@pytest.fixture
def frames() -> Frames:
    return Frames(CHANNEL, largest=4096)


def taken_apart(wire: bytes) -> list[tuple[int, bytes]]:
    """Kind and payload of each frame."""
    found: list[tuple[int, bytes]] = []
    while wire:
        kind, channel, size = wire[0], int.from_bytes(wire[1:3], "big"), int.from_bytes(wire[3:7], "big")
        assert (channel, wire[7 + size]) == (CHANNEL, 0xCE)
        found.append((kind, wire[7 : 7 + size]))
        wire = wire[8 + size :]
    return found


@pytest.mark.parametrize("envelope", [JOB, DeliveryEnvelope("whd_1", 4)])
def test_a_publish_says_where_what_and_that_it_must_arrive(frames: Frames, envelope: Envelope) -> None:
    message = encode(envelope)

    frames.publish(message, exchange=EXCHANGE, routing_key=ROUTE)

    (_, method), (_, header), (_, body) = taken_apart(frames.take())
    assert loads("Bssbb", method[4:], 0)[0] == [0, EXCHANGE, ROUTE, True, False]
    read: Any = amqp.Message()
    read.inbound_header(header)
    assert read.properties == message.properties | {"application_headers": message.headers}
    assert body == message.body


def test_what_was_gathered_keeps_its_order_and_is_taken_once(frames: Frames) -> None:
    for name in ("job_1", "job_2"):
        frames.publish(TaskMessage({}, encode(JOB).properties, name.encode()), exchange="", routing_key=ROUTE)

    bodies = [payload for kind, payload in taken_apart(frames.take()) if kind == BODY]

    assert bodies == [b"job_1", b"job_2"]
    assert frames.take() == b""


def test_a_long_body_comes_in_frames_of_the_agreed_size(frames: Frames) -> None:
    message = TaskMessage({}, encode(JOB).properties, b"x" * 10_000)

    frames.publish(message, exchange=EXCHANGE, routing_key=ROUTE)

    bodies = [payload for kind, payload in taken_apart(frames.take()) if kind == BODY]
    assert [len(body) for body in bodies] == [4088, 4088, 1824]
    assert b"".join(bodies) == message.body


def test_an_acknowledgement_names_its_tag(frames: Frames) -> None:
    frames.ack(7, multiple=True)

    [(kind, method)] = taken_apart(frames.take())
    assert kind == METHOD
    assert loads("Lb", method[4:], 0)[0] == [7, True]
