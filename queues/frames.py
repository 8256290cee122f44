"""A message as AMQP 0-9-1 puts it on the wire, in one piece: method, properties, body.

py-amqp writes the same bytes with more work, one message at a time, and looks at the socket before each.
"""

from collections.abc import Mapping
from functools import cache
from struct import Struct
from typing import Any, Final

from queues.messages import TaskMessage

_START: Final = Struct(">BHI")  # kind of frame, channel, size
_CONTENT: Final = Struct(">HHQH")  # class, weight, size of the body, which properties follow
_LONG: Final = Struct(">I")
_NUMBER: Final = Struct(">q")
_END: Final = b"\xce"
_METHOD, _HEADER, _BODY = 1, 2, 3
_BASIC: Final = 60
_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00"  # class 60, method 40, a reserved short
_MANDATORY: Final = b"\x01"
# Content type, content encoding, headers, delivery mode, priority, correlation id.
_PROPERTIES: Final = 0b1111_1100_0000_0000
_OVERHEAD: Final = 8  # bytes of a frame around its payload


class Frames:
    """Mandatory publishes to one exchange over one channel; no frame is larger than `largest` bytes."""

    def __init__(self, *, channel: int, exchange: str, largest: int) -> None:
        self._channel = channel
        self._exchange = _short(exchange)
        self._most = largest - _OVERHEAD

    def of(self, message: TaskMessage, routing_key: str) -> bytes:
        method = b"".join((_PUBLISH, self._exchange, _short(routing_key), _MANDATORY))
        body = message.body
        header = _CONTENT.pack(_BASIC, 0, len(body), _PROPERTIES) + _properties(message)
        pieces = [*self._frame(_METHOD, method), *self._frame(_HEADER, header)]
        for start in range(0, len(body), self._most):
            pieces += self._frame(_BODY, body[start : start + self._most])
        return b"".join(pieces)

    def _frame(self, kind: int, payload: bytes) -> tuple[bytes, bytes, bytes]:
        return _START.pack(kind, self._channel, len(payload)), payload, _END


def _properties(message: TaskMessage) -> bytes:
    given = message.properties
    return b"".join(
        (
            _short(given["content_type"]),
            _short(given["content_encoding"]),
            _table(message.headers),
            bytes((given["delivery_mode"], given["priority"])),
            _text(given["correlation_id"]),
        )
    )


def _table(fields: Mapping[str, Any]) -> bytes:
    pieces = []
    for name, value in fields.items():
        pieces.append(_short(name))
        match value:
            case str():
                encoded = value.encode()
                pieces += (b"S", _LONG.pack(len(encoded)), encoded)
            case bool():
                pieces.append(b"t\x01" if value else b"t\x00")
            case int():
                pieces += (b"l", _NUMBER.pack(value))
            case _:
                raise TypeError(f"no header may be {value!r}")
    table = b"".join(pieces)
    return _LONG.pack(len(table)) + table


@cache
def _short(text: str) -> bytes:
    """Of names that are few: exchanges, routing keys, headers."""
    return _text(text)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded
