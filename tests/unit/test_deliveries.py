from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from celery.worker import state

from queues.messages import JobEnvelope
from workers.deliveries import Delivery, Hand, Outbox, Tag


@dataclass(eq=False)
class FakeRequest:
    """As much of Celery's request as a delivery touches; `log` keeps what the broker and Flower saw."""

    id: str = "job_1"
    name: str = "penstock.generate"
    log: list[str] = field(default_factory=list)
    acknowledged: bool = False
    time_start: float | None = None
    delivery_info: dict[str, Any] = field(default_factory=dict)

    def on_accepted(self, _pid: int, at: float) -> None:
        self.time_start = at
        self.log.append("task-started")

    def acknowledge(self) -> None:
        self.acknowledged = True
        self.log.append("ack")

    def reject(self, *, requeue: bool) -> None:
        self.acknowledged = True
        self.log.append(f"reject requeue={requeue}")

    def send_event(self, kind: str, **_: object) -> None:
        self.log.append(kind)


@pytest.fixture(autouse=True)
def celery_state() -> Iterator[None]:
    yield
    state.reset_state()


@pytest.fixture
def hand() -> Hand:
    return Hand(Outbox(lambda: None), lambda _pid: None)


def arrive(hand: Hand, request: FakeRequest) -> tuple[Delivery, list[Delivery]]:
    envelope = JobEnvelope(request.id, 0, "tiny", "bulk", "acme", priority=5, cost=1, arrived=1.0)
    delivery = Delivery(envelope, Tag(request, hand.epoch), hand)
    return delivery, hand.take([delivery])


def test_the_acknowledgement_comes_with_the_settlement(hand: Hand) -> None:
    request = FakeRequest()
    delivery, _ = arrive(hand, request)

    delivery.started()
    hand.outbox.run()
    assert request.log == ["task-started"]
    delivery.succeeded("answered")
    hand.outbox.run()

    assert request.log == ["task-started", "ack", "task-succeeded"]
    assert len(hand) == 0


def test_a_second_settlement_changes_nothing(hand: Hand) -> None:
    request = FakeRequest()
    delivery, _ = arrive(hand, request)

    delivery.requeue()
    delivery.succeeded("answered")
    hand.outbox.run()

    assert request.log == ["reject requeue=True"]


def test_a_lost_connection_is_not_acknowledged_on_the_next(hand: Hand) -> None:
    request = FakeRequest()
    delivery, _ = arrive(hand, request)

    hand.epoch += 1
    delivery.succeeded("answered")
    hand.outbox.run()

    assert request.log == ["task-succeeded"]


def test_a_running_job_adopts_its_redelivered_copy(hand: Hand) -> None:
    old, new = FakeRequest(), FakeRequest(delivery_info={"redelivered": True})
    delivery, _ = arrive(hand, old)
    delivery.started()
    hand.outbox.run()

    hand.epoch += 1
    _, fresh = arrive(hand, new)
    delivery.succeeded("answered")
    hand.outbox.run()

    assert fresh == []
    assert delivery.redelivered
    assert old.log == ["task-started"]
    assert new.log == ["task-started", "ack", "task-succeeded"]


def test_a_second_message_of_one_job_replaces_the_first(hand: Hand) -> None:
    old, new = FakeRequest(), FakeRequest()
    delivery, _ = arrive(hand, old)

    arrive(hand, new)
    hand.outbox.run()
    assert (old.log, new.log) == (["ack"], [])
    delivery.started()
    delivery.dropped("cancelled")
    hand.outbox.run()

    assert new.log == ["task-started", "ack", "task-succeeded"]


def test_what_celery_announced_as_revoked_is_not_announced_again(hand: Hand) -> None:
    request = FakeRequest()
    delivery, _ = arrive(hand, request)

    request.acknowledge()
    delivery.revoked()
    hand.outbox.run()

    assert request.log == ["ack"]


def test_only_what_came_over_the_lost_connection_is_forgotten(hand: Hand) -> None:
    arrive(hand, FakeRequest("before"))
    running, _ = arrive(hand, FakeRequest("running"))
    running.started()
    hand.epoch += 1
    arrive(hand, FakeRequest("after"))

    assert hand.waiting_from_before(hand.epoch) == ["before"]


def test_one_broken_effect_does_not_stop_the_others() -> None:
    outbox, ran = Outbox(lambda: None), []
    outbox.put(lambda: 1 / 0)
    outbox.put(ran.append, "next")

    outbox.run()

    assert ran == ["next"]


def test_a_burst_of_effects_wakes_the_hub_once() -> None:
    wakes: list[str] = []
    outbox = Outbox(lambda: wakes.append("wake"))

    for _ in range(3):
        outbox.put(list)
    outbox.run()
    outbox.put(list)

    assert wakes == ["wake", "wake"]
