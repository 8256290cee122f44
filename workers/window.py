"""The messages of one model that wait at this worker, and what is known of them together."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from models.service_class import ServiceClass
from queues.messages import JobEnvelope
from queues.order import Item
from workers.deliveries import Delivery
from workers.quarantine import Isolation, isolation


@dataclass(frozen=True, slots=True)
class _Seat:
    delivery: Delivery
    item: Item
    kind: Isolation


class Window:
    """By task id, in the order of their arrival. What the order needs of a message is worked out once:
    a choice looks at all of them to begin a few.
    """

    def __init__(self, max_attempts: int) -> None:
        self._max_attempts = max_attempts
        self._seats: dict[str, _Seat] = {}
        self._classes: Counter[str] = Counter()
        self._kinds: Counter[Isolation] = Counter()
        self._latest: dict[str, JobEnvelope] = {}

    def add(self, delivery: Delivery) -> None:
        envelope = delivery.envelope
        self.pop(delivery.task_id)
        kind = isolation(attempts=envelope.attempts, strikes=envelope.strikes, limit=self._max_attempts)
        self._seats[delivery.task_id] = _Seat(delivery, _item(delivery), kind)
        self._classes[envelope.service_class] += 1
        self._kinds[kind] += 1
        known = self._latest.get(envelope.service_class)
        if known is None or envelope.arrived >= known.arrived:
            self._latest[envelope.service_class] = envelope

    def pop(self, task_id: str) -> Delivery | None:
        seat = self._seats.pop(task_id, None)
        if seat is None:
            return None
        service_class = seat.delivery.envelope.service_class
        self._classes[service_class] -= 1
        self._kinds[seat.kind] -= 1
        if not self._classes[service_class]:
            del self._latest[service_class]
        return seat.delivery

    def clear(self) -> list[Delivery]:
        """All that waited."""
        deliveries = list(self)
        for delivery in deliveries:
            self.pop(delivery.task_id)
        return deliveries

    def holds(self, service_class: str) -> int:
        """How many of a class wait here."""
        return self._classes[service_class]

    def kinds(self) -> list[Isolation]:
        """Every kind that waits."""
        return [kind for kind, count in self._kinds.items() if count]

    def items(self, kind: Isolation) -> list[Item]:
        return [seat.item for seat in self._seats.values() if seat.kind is kind]

    def backlog(self) -> dict[str, int]:
        """Tokens that wait per class, here or elsewhere, as the latest message of each says."""
        return {name: envelope.backlog for name, envelope in self._latest.items()}

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._seats

    def __iter__(self) -> Iterator[Delivery]:
        return iter([seat.delivery for seat in self._seats.values()])

    def __len__(self) -> int:
        return len(self._seats)


def _item(delivery: Delivery) -> Item:
    envelope = delivery.envelope
    return Item(
        key=delivery.task_id,
        service_class=ServiceClass(envelope.service_class),
        tenant=envelope.tenant,
        priority=envelope.priority,
        cost=envelope.cost,
        arrived=envelope.arrived,
        deadline=envelope.deadline,
        prefix=envelope.prefix,
        prefix_tokens=envelope.prefix_tokens,
        batch=envelope.batch,
        trail=envelope.trail,
    )
