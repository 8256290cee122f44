"""kombu's AMQP transport, reading what the socket holds in one go.

py-amqp asks the socket three times for each frame, of which a message has three, and kombu goes once around
its loop for each message.
"""

# kombu says that it is typed and is not.
# mypy: disable-error-code="no-untyped-call"

import socket
from struct import Struct
from typing import Any, Final

from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.transport import TCPTransport
from kombu.transport import pyamqp

NAME: Final = "queues.amqp_transport:Transport"

# A frame's leftovers are copied once for each frame before them.
_AT_ONCE: Final = 32 * 1024  # bytes
_START: Final = Struct(">BHI")  # kind, channel, size
_END: Final = 0xCE

Frame = tuple[int, int, bytes]


class Transport(pyamqp.Transport):
    def on_readable(self, connection: Any, loop: Any) -> None:
        """On the hub's thread: hands on every frame that has arrived whole."""
        if not connection.connected:
            raise RecoverableConnectionError("Socket was disconnected")
        transport = connection.transport
        if not isinstance(transport, TCPTransport):
            super().on_readable(connection, loop)
        elif _receive(transport):
            # A frame may end the connection, and what it calls may read on from the same buffer.
            while connection.transport is transport and (frame := take_frame(transport)) is not None:
                connection.on_inbound_frame(frame)


def _receive(transport: Any) -> bool:
    """Whether something came. Raises `OSError` when the other side is gone."""
    try:
        received = transport.sock.recv(_AT_ONCE, socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        transport.connected = False
        raise
    if not received:
        transport.connected = False
        raise OSError("Server unexpectedly closed connection")
    transport._read_buffer += received  # noqa: SLF001 - py-amqp's own reads go on from there
    return True


def take_frame(transport: Any) -> Frame | None:
    """The first frame of the transport's buffer, once it is there to its end. Raises `UnexpectedFrame`."""
    buffer: bytes = transport._read_buffer  # noqa: SLF001
    if len(buffer) < _START.size:
        return None
    kind, channel, size = _START.unpack_from(buffer)
    end = _START.size + size
    if len(buffer) <= end:
        return None
    if buffer[end] != _END:
        raise UnexpectedFrame(f"Received frame_end {buffer[end]:#04x} while expecting 0xce")
    transport._read_buffer = buffer[end + 1 :]  # noqa: SLF001
    return kind, channel, buffer[_START.size : end]
