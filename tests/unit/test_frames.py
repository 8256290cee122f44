"""Our frames are those that py-amqp would have written."""

from types import SimpleNamespace
from typing import Any

import amqp
import pytest
from amqp import spec
from amqp.method_framing import frame_writer
from amqp.serialization import dumps

from queues.frames import Frames
from queues.messages import DeliveryEnvelope, Envelope, JobEnvelope, TaskMessage, encode

EXCHANGE, ROUTE, CHANNEL = "penstock.jobs", "org/large.premium", 3

JOB = JobEnvelope(
    id="job_1",
    generation=2,
    model="org/large",
    service_class="premium",
    tenant="acmé",
    priority=9,
    cost=300,
    arrived=1_900_000_000.5,
    trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)


def written_by_amqp(message: TaskMessage) -> bytes:
    wire: list[bytes] = []
    transport = SimpleNamespace(write=lambda piece: wire.append(bytes(piece)))
    connection = SimpleNamespace(frame_max=131_072, bytes_sent=0)
    content = amqp.Message(message.body, application_headers=message.headers, **message.properties)
    arguments = dumps("Bssbb", (0, EXCHANGE, ROUTE, True, False))
    frame_writer(connection, transport)(1, CHANNEL, spec.Basic.Publish, arguments, content)
    return b"".join(wire)


@pytest.mark.parametrize("envelope", [JOB, DeliveryEnvelope("whd_1", 4)])
def test_a_publish_is_the_one_that_amqp_writes(envelope: Envelope) -> None:
    message = encode(envelope)

    frames = Frames(channel=CHANNEL, exchange=EXCHANGE, largest=131_072).of(message, ROUTE)

    assert frames == written_by_amqp(message)


def test_a_long_body_comes_in_frames_of_the_agreed_size() -> None:
    message = TaskMessage({}, encode(JOB).properties, b"x" * 10_000)

    frames = Frames(channel=CHANNEL, exchange=EXCHANGE, largest=4096).of(message, ROUTE)

    bodies = [payload for kind, payload in taken_apart(frames) if kind == 3]
    assert [len(body) for body in bodies] == [4088, 4088, 1824]
    assert b"".join(bodies) == message.body


def test_a_header_that_the_wire_has_no_word_for_is_refused() -> None:
    message = TaskMessage({"timelimit": [None, None]}, encode(JOB).properties, b"")

    with pytest.raises(TypeError, match="no header may be"):
        Frames(channel=CHANNEL, exchange=EXCHANGE, largest=4096).of(message, ROUTE)


def taken_apart(wire: bytes) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while wire:
        kind, size = wire[0], int.from_bytes(wire[3:7], "big")
        assert wire[7 + size] == 0xCE
        found.append((kind, wire[7 : 7 + size]))
        wire = wire[8 + size :]
    return found


def test_numbers_and_truth_are_written_as_amqp_reads_them() -> None:
    message = TaskMessage({"n": -7, "yes": True, "no": False}, encode(JOB).properties, b"")

    frames = Frames(channel=CHANNEL, exchange=EXCHANGE, largest=4096).of(message, ROUTE)

    [header] = [payload for kind, payload in taken_apart(frames) if kind == 2]
    read: Any = amqp.Message()
    read.inbound_header(header)
    assert read.properties["application_headers"] == message.headers
