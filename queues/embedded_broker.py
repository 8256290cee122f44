"""The broker of the embedded profile: a kombu transport whose queues live in this process.

`memory-priority://name`: every connection to one name shares its queues. A queue is a heap by priority
and place; whoever waits for a message sleeps on a condition, so a publish wakes it at once. The queues
die with the process: on start, what the job table says is queued is published again.
"""

# kombu says that it is typed and is not.
# mypy: disable-error-code="no-untyped-call"

import heapq
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from queue import Empty
from typing import Any, Final

from kombu.exceptions import ChannelError
from kombu.transport import TRANSPORT_ALIASES, virtual

SCHEME: Final = "memory-priority"
Payload = dict[str, Any]


@dataclass(slots=True)
class _Queue:
    limit: float = float("inf")
    dead_letters: str | None = None
    auto_delete: bool = False
    consumers: int = 0
    heap: list[tuple[int, int, Payload]] = field(default_factory=list)


class Broker:
    """Queues, exchanges and bindings of one name. `changed` guards them and tells of each change."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.state = virtual.BrokerState()
        self.queues: dict[str, _Queue] = {}
        self._places = itertools.count()

    def declare(self, name: str, *, auto_delete: bool, arguments: Mapping[str, Any]) -> None:
        with self.changed:
            if name not in self.queues:
                limit = arguments.get("x-max-length", float("inf"))
                refuses = arguments.get("x-overflow") == "reject-publish"
                self.queues[name] = _Queue(
                    limit if refuses else float("inf"), arguments.get("x-dead-letter-exchange"), auto_delete
                )

    def put(self, name: str, message: Payload) -> None:
        """Raises `ChannelError` when the queue is full. A message that comes back keeps its place."""
        properties = message["properties"]
        with self.changed:
            queue = self.queues.setdefault(name, _Queue())
            back = "place" in properties
            if len(queue.heap) >= queue.limit and not back:
                raise ChannelError(f"queue {name} is full")
            # Each queue gets a copy: a fanout puts one message into many.
            info = {**properties["delivery_info"], "queue": name}
            place = properties["place"] if back else next(self._places)
            copy = {**message, "properties": {**properties, "place": place, "delivery_info": info}}
            heapq.heappush(queue.heap, (-int(properties.get("priority") or 0), place, copy))
            self.changed.notify_all()

    def get(self, name: str) -> Payload:
        with self.changed:
            queue = self.queues.get(name)
            if queue is None or not queue.heap:
                raise Empty
            return heapq.heappop(queue.heap)[2]

    def size(self, name: str) -> int:
        with self.changed:
            queue = self.queues.get(name)
            return len(queue.heap) if queue else 0

    def purge(self, name: str) -> int:
        with self.changed:
            size = self.size(name)
            if size:
                self.queues[name].heap.clear()
            return size


_BROKERS: Final[dict[str, Broker]] = {}


def broker(name: str = "") -> Broker:
    return _BROKERS.setdefault(name, Broker())


def forget(name: str) -> None:
    """Lose a broker and all that it holds, as its process would by dying."""
    _BROKERS.pop(name, None)


def register() -> None:
    """Make `memory-priority://` known to kombu in this process."""
    TRANSPORT_ALIASES[SCHEME] = f"{__name__}:Transport"


class QoS(virtual.QoS):
    """Unacknowledged messages of a channel; the prefetch limit counts per queue, as per consumer in AMQP."""

    def __init__(self, channel: "Channel", prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        self._held: Counter[str] = Counter()

    def has_room(self, queue: str) -> bool:
        return not self.prefetch_count or self._held[queue] < self.prefetch_count

    def append(self, message: Any, delivery_tag: str) -> None:
        with self.channel.broker.changed:
            self._delivered[delivery_tag] = message
            self._held[message.delivery_info["queue"]] += 1

    def ack(self, delivery_tag: str) -> None:
        with self.channel.broker.changed:
            self._pop(delivery_tag)
            self.channel.broker.changed.notify_all()

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002
        with self.channel.broker.changed:
            message = self._pop(delivery_tag)
            if message is not None and requeue:
                self.channel.restore(message)
            elif message is not None:
                self.channel.bury(message)
            self.channel.broker.changed.notify_all()

    def _pop(self, delivery_tag: str) -> Any:
        message = self._delivered.pop(delivery_tag, None)
        if message is not None:
            self._held[message.delivery_info["queue"]] -= 1
        return message


class Channel(virtual.Channel):
    QoS = QoS
    supports_fanout = True
    do_restore = True
    body_encoding = ""

    _tags = itertools.count(1)

    def __init__(self, connection: "Transport", **kwargs: Any) -> None:
        self.broker = connection.broker
        super().__init__(connection, **kwargs)

    def take(self) -> tuple[str, Payload] | None:
        """The next message of a queue that has room, each queue in its turn."""
        for _ in range(len(self._active_queues)):
            queue = self._active_queues.pop(0)
            self._active_queues.append(queue)
            if self.qos.has_room(queue) and self.broker.size(queue):
                return queue, self.broker.get(queue)
        return None

    def restore(self, message: Any) -> None:
        payload = message.serializable()
        payload["properties"]["delivery_info"]["redelivered"] = True
        self.broker.put(message.delivery_info["queue"], payload)

    _restore = restore

    def bury(self, message: Any) -> None:
        source = self.broker.queues.get(message.delivery_info["queue"])
        if source and source.dead_letters in self.state.exchanges:
            payload = message.serializable()
            payload["properties"].pop("place")
            key = message.delivery_info["routing_key"]
            self.typeof(source.dead_letters).deliver(payload, source.dead_letters, key)

    def basic_publish(
        self, message: Payload, exchange: str, routing_key: str, *, mandatory: bool = False, **_: Any
    ) -> None:
        """Raises `ChannelError` when a queue is full, and when `mandatory` and there is none."""
        with self.broker.changed:
            if mandatory and not self._lookup(exchange, routing_key):
                raise ChannelError(f"no queue for {exchange}/{routing_key}")
            super().basic_publish(message, exchange, routing_key)

    def basic_consume(
        self,
        queue: str,
        no_ack: bool,  # noqa: FBT001
        callback: Callable[..., Any],
        consumer_tag: str,
        **kwargs: Any,
    ) -> None:
        with self.broker.changed:
            super().basic_consume(queue, no_ack, callback, consumer_tag, **kwargs)
            if queue in self.broker.queues:
                self.broker.queues[queue].consumers += 1

    def basic_cancel(self, consumer_tag: str) -> None:
        with self.broker.changed:
            queue = self.broker.queues.get(name := self._tag_to_queue.get(consumer_tag, ""))
            super().basic_cancel(consumer_tag)
            if queue is not None:
                queue.consumers -= 1
                if queue.auto_delete and queue.consumers <= 0:
                    self.queue_delete(name)

    def exchange_declare(self, *args: Any, **kwargs: Any) -> None:
        with self.broker.changed:
            super().exchange_declare(*args, **kwargs)

    def queue_bind(self, *args: Any, **kwargs: Any) -> None:
        with self.broker.changed:
            super().queue_bind(*args, **kwargs)

    def queue_unbind(self, *args: Any, **kwargs: Any) -> None:
        with self.broker.changed:
            super().queue_unbind(*args, **kwargs)

    def queue_delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        with self.broker.changed:
            super().queue_delete(queue, *args, **kwargs)
            self.broker.queues.pop(queue, None)

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        auto_delete = bool(kwargs.get("auto_delete"))
        self.broker.declare(queue, auto_delete=auto_delete, arguments=kwargs.get("arguments") or {})

    def _has_queue(self, queue: str, **_: Any) -> bool:
        return queue in self.broker.queues

    def _get(self, queue: str, timeout: float | None = None) -> Payload:  # noqa: ARG002
        return self.broker.get(queue)

    def _put(self, queue: str, message: Payload, **_: Any) -> None:
        self.broker.put(queue, message)

    def _put_fanout(self, exchange: str, message: Payload, routing_key: str | None = None, **_: Any) -> None:
        for queue in self._lookup(exchange, routing_key):
            self.broker.put(queue, message)

    def _queue_bind(self, *_: Any) -> None:
        pass

    def _size(self, queue: str) -> int:
        return self.broker.size(queue)

    def _purge(self, queue: str) -> int:
        return self.broker.purge(queue)

    def _delete(self, queue: str, exchange: str, routing_key: str, pattern: Any, *_: Any, **__: Any) -> None:
        table = self.get_table(exchange)
        table[:] = [row for row in table if row != (routing_key, pattern, queue)]
        self.broker.queues.pop(queue, None)

    def _next_delivery_tag(self) -> str:
        return str(next(self._tags))


class Transport(virtual.Transport):
    Channel = Channel
    driver_type = "memory"
    driver_name = SCHEME
    # Celery offers remote control only where it finds a fanout.
    implements = virtual.Transport.implements.extend(
        exchange_type=frozenset({"direct", "topic", "fanout"}),
    )

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.broker = broker(client.hostname or "")
        self.state = self.broker.state
        self._woken = False
        self._turn = 0

    def driver_version(self) -> str:
        return "1"

    def wake(self) -> None:
        """End the current or the next wait, from any thread: there is something else to do."""
        with self.broker.changed:
            self._woken = True
            self.broker.changed.notify_all()

    def drain_events(self, connection: Any, timeout: float | None = None, **_: Any) -> None:  # noqa: ARG002
        """Deliver one message. Raises `TimeoutError` when none came in time or `wake` was called."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self.broker.changed:
            while (found := next(self._found(), None)) is None:
                left = None if deadline is None else deadline - time.monotonic()
                if self._woken or (left is not None and left <= 0):
                    self._woken = False
                    raise TimeoutError
                self.broker.changed.wait(left)
        queue, message = found
        self._deliver(message, queue)

    def _found(self) -> Iterator[tuple[str, Payload]]:
        # Each channel begins in its turn: a full stream of jobs must not hide remote control.
        self._turn = (self._turn + 1) % max(1, len(self.channels))
        for channel in self.channels[self._turn :] + self.channels[: self._turn]:
            if found := channel.take():
                yield found
