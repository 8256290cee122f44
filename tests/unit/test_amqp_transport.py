"""Frames out of a buffer, however the network cut them."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.transport import TCPTransport

from queues.amqp_transport import Transport, take_frame


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    return bytes((kind, 0, channel)) + len(payload).to_bytes(4, "big") + payload + b"\xce"


FRAMES = [(1, 1, b"deliver"), (2, 1, b"header"), (3, 1, b""), (8, 0, b"")]
WIRE = b"".join(frame(*one) for one in FRAMES)


class Link:
    """A connection whose other end the test holds."""

    connected = True

    def __init__(self, near: socket.socket) -> None:
        self.transport: Any = TCPTransport("host:1", connect_timeout=1)
        self.transport.sock = near
        self.seen: list[tuple[int, int, bytes]] = []

    def on_inbound_frame(self, seen: tuple[int, int, bytes]) -> None:
        self.seen.append(seen)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    near, far = socket.socketpair()
    yield near, far
    near.close()
    far.close()


@pytest.fixture
def reader() -> Transport:
    return Transport(SimpleNamespace())


@pytest.mark.parametrize("step", [1, 5, 8, len(WIRE)])
def test_every_frame_is_handed_on_once_and_whole(
    ends: tuple[socket.socket, socket.socket], reader: Transport, step: int
) -> None:
    near, far = ends
    link = Link(near)

    for start in range(0, len(WIRE), step):
        far.sendall(WIRE[start : start + step])
        reader.on_readable(link, None)

    assert link.seen == FRAMES


def test_a_socket_without_news_is_left_alone(
    ends: tuple[socket.socket, socket.socket], reader: Transport
) -> None:
    link = Link(ends[0])

    reader.on_readable(link, None)

    assert link.seen == []


def test_the_other_sides_end_is_an_error(
    ends: tuple[socket.socket, socket.socket], reader: Transport
) -> None:
    near, far = ends
    link = Link(near)
    far.shutdown(socket.SHUT_WR)

    with pytest.raises(OSError, match="closed connection"):
        reader.on_readable(link, None)

    assert link.transport.connected is False


def test_a_lost_connection_reads_nothing(reader: Transport) -> None:
    with pytest.raises(RecoverableConnectionError):
        reader.on_readable(SimpleNamespace(connected=False), None)


def test_what_follows_a_frame_stays_for_whoever_reads_inside_it(
    ends: tuple[socket.socket, socket.socket], reader: Transport
) -> None:
    near, far = ends
    link = Link(near)
    inside: list[object] = []

    def read_on(seen: tuple[int, int, bytes]) -> None:
        if seen[0] == 1:
            inside.append(link.transport.read_frame())
        link.seen.append(seen)

    link.on_inbound_frame = read_on  # type: ignore[method-assign]
    link.transport._setup_transport()
    far.sendall(WIRE)
    reader.on_readable(link, None)

    assert inside == FRAMES[1:2]
    assert link.seen == [FRAMES[0], *FRAMES[2:]]


def test_a_frame_without_its_end_is_refused() -> None:
    broken = SimpleNamespace(_read_buffer=frame(1, 1, b"x")[:-1] + b"\x00")

    with pytest.raises(UnexpectedFrame):
        take_frame(broken)
