"""Every name in the broker: exchanges, queues, routing keys and their arguments."""

# kombu says that it is typed and is not.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Iterator, Sequence
from typing import Any

from kombu.entity import Exchange, Queue

from core.settings import BrokerSettings
from queues.messages import CLASSES, DeliveryEnvelope, Envelope

# Ten levels above none: RabbitMQ recommends at most ten, and the API offers 0 to 9.
_PRIORITIES = 10
_WEBHOOKS = "webhooks"  # no served model's key: those end with a class


class Topology:
    """One durable queue per model and class, so that a prefetched backlog of one class never hides another.

    Measured on one priority queue for everything: 16 slots behind a backlog made interactive jobs wait
    12, 345 and 1,540 ms at prefetch 1, 4 and 16; class queues with per-consumer prefetch 29 ms.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self.namespace = settings.namespace
        self.exchange = Exchange(f"{self.namespace}.jobs", type="direct", durable=True)
        # A fanout keeps the routing key of the dead message: it says where to send it again.
        self.dead = Queue(
            f"{self.namespace}.dead",
            Exchange(f"{self.namespace}.dead", type="fanout", durable=True),
            durable=True,
            queue_arguments={"x-queue-type": settings.queue_type, "x-max-length": settings.max_length},
        )

    def routing_key(self, model: str, service_class: str) -> str:
        return f"{model}.{service_class}"

    @property
    def webhooks(self) -> Queue:
        """Due deliveries: bounded by the receivers' limits, and nothing in it is the only copy."""
        return Queue(
            f"{self.namespace}.webhooks",
            self.exchange,
            routing_key=_WEBHOOKS,
            durable=True,
            queue_arguments=self._arguments(),
        )

    def route(self, envelope: Envelope) -> str:
        if isinstance(envelope, DeliveryEnvelope):
            return _WEBHOOKS
        return self.routing_key(envelope.model, envelope.service_class)

    def queue_name(self, model: str, service_class: str) -> str:
        return f"{self.namespace}.jobs.{model}.{service_class}"

    def queue(self, model: str, service_class: str) -> Queue:
        return Queue(
            self.queue_name(model, service_class),
            self.exchange,
            routing_key=self.routing_key(model, service_class),
            durable=True,
            queue_arguments=self._arguments(),
        )

    def queues(self, models: Sequence[str]) -> list[Queue]:
        return [self.queue(model, service_class) for model, service_class in self.pairs(models)]

    def pairs(self, models: Sequence[str]) -> Iterator[tuple[str, str]]:
        return ((model, service_class) for model in models for service_class in CLASSES)

    def declare(self, channel: Any, models: Sequence[str]) -> None:
        """Create what is missing; the broker refuses (406) what exists with other arguments."""
        for queue in (self.dead, self.webhooks, *self.queues(models)):
            queue(channel).declare()

    def _arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "x-queue-type": self._settings.queue_type,
            "x-max-length": self._settings.max_length,
            # Never drop-head: on a priority queue it drops the most urgent message first.
            "x-overflow": "reject-publish",
            "x-dead-letter-exchange": self.dead.exchange.name,
        }
        if self._settings.queue_priorities:
            arguments["x-max-priority"] = _PRIORITIES
        return arguments
