"""Publishing: envelopes to the broker, and which of them it confirmed."""

# kombu says that it is typed and is not.
# mypy: disable-error-code="no-untyped-call"

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import amqp
from kombu.connection import Connection
from kombu.exceptions import ChannelError, OperationalError
from kombu.transport.virtual import Channel as VirtualChannel

from core.errors import BrokerUnavailable
from core.settings import BrokerSettings
from queues import embedded_broker
from queues.confirms import Confirms
from queues.frames import Frames
from queues.messages import Envelope, TaskMessage, encode
from queues.topology import Topology

WINDOW: Final = 256

_FIRST_BACKOFF: Final = 0.1
_LONGEST_BACKOFF: Final = 5.0
_LOST: Final = (*amqp.Connection.connection_errors, *amqp.Connection.channel_errors, OSError)

T = TypeVar("T")


class Publisher(Protocol):
    async def reach(self) -> None:
        """Connects where it is not connected. Raises `BrokerUnavailable`."""

    async def publish(self, envelopes: Sequence[Envelope]) -> set[str]:
        """The task ids that the broker confirmed; the others may be published again under the same id.

        Raises `BrokerUnavailable` when it could not be reached or confirmed nothing in time.
        """

    async def depths(self, models: Sequence[str]) -> dict[tuple[str, str], int]:
        """Ready messages by model and class. Raises `BrokerUnavailable`."""

    async def dead(self, limit: int) -> "list[DeadMessage]":
        """Messages that the broker or a worker gave up, until they are buried. Raises `BrokerUnavailable`."""

    async def bury(self, messages: "Sequence[DeadMessage]") -> None:
        """Done with them. Those of a connection that was lost come again."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """`channel` is the one it came over: its tag means nothing on another."""

    body: bytes
    tag: int
    channel: Any


def open_publisher(settings: BrokerSettings, models: Sequence[str]) -> "AmqpPublisher | KombuPublisher":
    """The publisher for the address; connects on first use."""
    if settings.url.get_secret_value().startswith(("amqp://", "amqps://")):
        return AmqpPublisher(settings, models)
    return KombuPublisher(settings, models)


class AmqpPublisher:
    """One connection on one thread; windows of messages are pipelined and settled by confirm tag.

    Without a heartbeat: between two calls nobody would send it, and every call has its own timeouts.
    """

    def __init__(self, settings: BrokerSettings, models: Sequence[str], *, window: int = WINDOW) -> None:
        self._settings = settings
        self._models = tuple(models)
        self._topology = Topology(settings)
        self._window = window
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="penstock-publisher")
        self._connection: Any = None
        self._channel: Any = None
        self._confirms = Confirms()
        self._backoff = 0.0
        self._not_before = 0.0

    async def reach(self) -> None:
        if self._channel is None:
            await self._run(self._connected)

    async def publish(self, envelopes: Sequence[Envelope]) -> set[str]:
        return await self._run(lambda: self._publish(envelopes))

    async def depths(self, models: Sequence[str]) -> dict[tuple[str, str], int]:
        return await self._run(lambda: self._depths(models))

    async def dead(self, limit: int) -> list[DeadMessage]:
        return await self._run(lambda: self._dead(limit))

    async def bury(self, messages: Sequence[DeadMessage]) -> None:
        await self._run(lambda: self._bury(messages))

    async def close(self) -> None:
        await self._run(self._disconnect)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _publish(self, envelopes: Sequence[Envelope]) -> set[str]:
        confirmed: set[str] = set()
        for start in range(0, len(envelopes), self._window):
            try:
                self._publish_window(envelopes[start : start + self._window], confirmed)
            except BrokerUnavailable:
                if not confirmed:
                    raise
                break
        return confirmed

    def _publish_window(self, envelopes: Sequence[Envelope], confirmed: set[str]) -> None:
        confirms = Confirms()
        try:
            with self._link() as channel:
                confirms = self._confirms
                confirms.begin()
                frames = Frames(channel.channel_id, largest=self._connection.frame_max)
                exchange = self._topology.exchange.name
                for envelope in envelopes:
                    message = encode(envelope)
                    confirms.published(message.headers["id"])
                    frames.publish(message, exchange=exchange, routing_key=self._topology.route(envelope))
                self._connection.transport.write(frames.take())
                self._await_confirms()
        except BrokerUnavailable as error:
            if not confirms.confirmed:
                raise BrokerUnavailable(f"The broker confirmed nothing. {error}") from error
        finally:
            confirmed |= confirms.confirmed

    def _await_confirms(self) -> None:
        deadline = time.monotonic() + self._settings.confirm_timeout.total_seconds()
        while self._confirms.waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the broker did not confirm in time")
            self._connection.drain_events(timeout=left)

    def _depths(self, models: Sequence[str]) -> dict[tuple[str, str], int]:
        with self._link() as channel:
            return {pair: _depth(channel, self._topology, pair) for pair in self._topology.pairs(models)}

    def _dead(self, limit: int) -> list[DeadMessage]:
        found: list[DeadMessage] = []
        with self._link() as channel:
            while len(found) < limit and (message := channel.basic_get(self._topology.dead.name)):
                found.append(DeadMessage(_as_bytes(message.body), message.delivery_tag, channel))
        return found

    def _bury(self, messages: Sequence[DeadMessage]) -> None:
        # Those of a lost connection come again, and find their jobs dealt with.
        with suppress(BrokerUnavailable), self._link() as current:
            for message in messages:
                if message.channel is current:
                    current.basic_ack(message.tag)

    @contextmanager
    def _link(self) -> Iterator[Any]:
        """The channel, which is given up after any failure.

        Not only after those that its library names: while a connection goes down, reading it can fail with
        an AttributeError, and a channel that was kept then would fail for ever.
        """
        channel = self._connected()
        try:
            yield channel
        except _LOST as error:
            self._lost()
            raise BrokerUnavailable(f"The broker did not answer: {error!r}.") from error
        except Exception:
            self._lost()
            raise

    def _connected(self) -> Any:
        if self._channel is not None:
            return self._channel
        wait = self._not_before - time.monotonic()
        if wait > 0:
            raise BrokerUnavailable(f"The broker cannot be reached; next attempt in {wait:.1f} s.")
        try:
            self._connect()
        except _LOST as error:
            self._lost()
            raise BrokerUnavailable(f"The broker cannot be reached: {error!r}.") from error
        self._backoff = 0.0
        return self._channel

    def _connect(self) -> None:
        timeout = self._settings.confirm_timeout.total_seconds()
        client = Connection(
            self._settings.url.get_secret_value(),
            connect_timeout=self._settings.connect_timeout.total_seconds(),
            heartbeat=0,
            transport_options={"read_timeout": timeout, "write_timeout": timeout},
        )
        # Not Connection.connect(): it sleeps two seconds and tries again.
        self._connection = client.transport.establish_connection()
        self._channel = self._connection.channel()
        self._topology.declare(self._channel, self._models)
        self._confirms = Confirms()
        self._confirms.attach(self._channel)

    def _lost(self) -> None:
        self._disconnect()
        self._backoff = min(max(2 * self._backoff, _FIRST_BACKOFF), _LONGEST_BACKOFF)
        self._not_before = time.monotonic() + self._backoff

    def _disconnect(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        if connection is None:
            return
        try:
            connection.close()
        except Exception:  # noqa: BLE001 - it is to be gone, whatever it says
            connection.collect()


class KombuPublisher:
    """For in-process transports: what they took is as safe as it gets, so nothing is awaited."""

    def __init__(self, settings: BrokerSettings, models: Sequence[str]) -> None:
        embedded_broker.register()
        self._models = tuple(models)
        self._topology = Topology(settings)
        self._connection = Connection(settings.url.get_secret_value())
        self._channel: VirtualChannel | None = None
        self._lock = threading.Lock()

    async def reach(self) -> None:
        if self._channel is None:
            await asyncio.to_thread(self._reach)

    async def publish(self, envelopes: Sequence[Envelope]) -> set[str]:
        return await asyncio.to_thread(lambda: set(self._publish(envelopes)))

    async def depths(self, models: Sequence[str]) -> dict[tuple[str, str], int]:
        return await asyncio.to_thread(self._depths, models)

    async def dead(self, limit: int) -> list[DeadMessage]:  # noqa: ARG002 - the contract's
        """None: an in-process broker drops what is refused, and the reconciler finds it missing."""
        return []

    async def bury(self, messages: Sequence[DeadMessage]) -> None:
        """See `dead`."""

    async def close(self) -> None:
        await asyncio.to_thread(self._connection.release)

    def _reach(self) -> None:
        with self._lock:
            self._connected()

    def _publish(self, envelopes: Sequence[Envelope]) -> Iterator[str]:
        with self._lock:
            channel = self._connected()
            for envelope in envelopes:
                message = encode(envelope)
                try:
                    channel.basic_publish(
                        _virtual_message(channel, message),
                        exchange=self._topology.exchange.name,
                        routing_key=self._topology.route(envelope),
                        mandatory=True,
                    )
                except ChannelError:
                    continue
                yield message.headers["id"]

    def _depths(self, models: Sequence[str]) -> dict[tuple[str, str], int]:
        with self._lock:
            channel = self._connected()
            return {pair: _depth(channel, self._topology, pair) for pair in self._topology.pairs(models)}

    def _connected(self) -> Any:
        if self._channel is None:
            try:
                self._channel = self._connection.channel()
            except (OperationalError, OSError) as error:
                raise BrokerUnavailable(f"The broker cannot be reached: {error!r}.") from error
            self._topology.declare(self._channel, self._models)
        return self._channel


def _as_bytes(body: bytes | str) -> bytes:
    return body.encode() if isinstance(body, str) else body


def _virtual_message(channel: Any, message: TaskMessage) -> Any:
    properties = dict(message.properties)
    return channel.prepare_message(
        message.body,
        priority=properties["priority"],
        content_type=properties.pop("content_type"),
        content_encoding=properties.pop("content_encoding"),
        headers=message.headers,
        properties=properties,
    )


def _depth(channel: Any, topology: Topology, pair: tuple[str, str]) -> int:
    """A passive declare: exact, 0.2 ms; the management API takes 2 ms and is 2 s stale."""
    return int(channel.queue_declare(topology.queue_name(*pair), passive=True).message_count)
