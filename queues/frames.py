"""What py-amqp writes, gathered: the publishes of a window, or the acknowledgements of a burst, in one write.

`basic_publish` writes one message at a time and looks at the socket before each, `basic_ack` costs a call of
the kernel each. py-amqp's own writer of frames, given a buffer for a socket, takes 16 µs a message.
"""

# py-amqp has no types.
# mypy: disable-error-code="no-untyped-call"

from types import SimpleNamespace

from amqp import Message, spec
from amqp.method_framing import frame_writer
from amqp.serialization import dumps

from queues.messages import TaskMessage

_METHOD = 1


class Frames:
    """Of one channel; none is larger than `largest` bytes, as the connection agreed."""

    def __init__(self, channel: int, *, largest: int) -> None:
        self._channel = channel
        self._written = bytearray()
        self._frame = frame_writer(SimpleNamespace(frame_max=largest, bytes_sent=0), self)

    def publish(self, message: TaskMessage, *, exchange: str, routing_key: str) -> None:
        """A mandatory one: what no queue takes comes back."""
        arguments = dumps("Bssbb", (0, exchange, routing_key, True, False))
        content = Message(message.body, application_headers=message.headers, **message.properties)
        self._frame(_METHOD, self._channel, spec.Basic.Publish, arguments, content)

    def ack(self, tag: int, *, multiple: bool) -> None:
        self._frame(_METHOD, self._channel, spec.Basic.Ack, dumps("Lb", (tag, multiple)), None)

    def write(self, piece: bytes | memoryview) -> None:
        """What py-amqp calls, which uses the piece's memory again afterwards."""
        self._written += piece

    def take(self) -> bytes:
        """All that was gathered since the last call."""
        written, self._written = bytes(self._written), bytearray()
        return written
