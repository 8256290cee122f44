"""What waits at a worker, as the one order sees it. Pure."""

from collections.abc import Iterable

from models.service_class import ServiceClass
from queues.messages import JobEnvelope
from queues.order import Item
from queues.prefixes import Warm
from workers.deliveries import Delivery


def backlog_of(deliveries: Iterable[Delivery]) -> dict[str, int]:
    """Tokens that wait per class, as the latest message of each says."""
    latest: dict[str, JobEnvelope] = {}
    for delivery in deliveries:
        envelope = delivery.envelope
        known = latest.get(envelope.service_class)
        if known is None or envelope.arrived > known.arrived:
            latest[envelope.service_class] = envelope
    return {name: envelope.backlog for name, envelope in latest.items()}


def item_of(delivery: Delivery) -> Item:
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


def warm_by(running: Iterable[Delivery]) -> Warm:
    """What the engine holds for as long as these run."""
    return Warm.of((delivery.envelope.prefix, delivery.envelope.trail) for delivery in running)
