"""What a worker's window knows of the messages in it."""

import time
from typing import Any

from queues.messages import JobEnvelope, task_id
from workers.quarantine import Isolation
from workers.window import Window


class FakeDelivery:
    def __init__(self, job_id: str, **changes: Any) -> None:
        values = {
            "generation": 0,
            "model": "default",
            "service_class": "standard",
            "tenant": "acme",
            "priority": 5,
            "cost": 10,
            "arrived": time.time(),
        }
        self.envelope = JobEnvelope(id=job_id, **(values | changes))  # type: ignore[arg-type]
        self.task_id = task_id(self.envelope)


def window(*deliveries: FakeDelivery) -> Window:
    made = Window(3)
    for delivery in deliveries:
        made.add(delivery)  # type: ignore[arg-type]
    return made


def test_what_is_taken_out_is_counted_no_more() -> None:
    found = window(FakeDelivery("a", service_class="premium"), FakeDelivery("b"))

    taken = found.pop("a")

    assert taken is not None
    assert found.pop("a") is None
    assert (found.holds("premium"), found.holds("standard"), len(found)) == (0, 1, 1)
    assert "a" not in found
    assert list(found.backlog()) == ["standard"]


def test_a_copy_takes_the_place_of_the_first() -> None:
    found = window(FakeDelivery("a"), FakeDelivery("a"))

    assert (len(found), found.holds("standard")) == (1, 1)


def test_suspects_are_a_kind_of_their_own() -> None:
    found = window(FakeDelivery("free"), FakeDelivery("struck", attempts=1, strikes=1))

    assert sorted(found.kinds()) == [Isolation.FREE, Isolation.GROUP]
    assert [item.key for item in found.items(Isolation.GROUP)] == ["struck"]
    found.pop("struck")
    assert found.kinds() == [Isolation.FREE]


def test_the_latest_message_says_what_waits() -> None:
    found = window(FakeDelivery("new", arrived=2.0, backlog=70), FakeDelivery("old", arrived=1.0, backlog=50))

    assert found.backlog() == {"standard": 70}


def test_clearing_hands_out_all() -> None:
    found = window(FakeDelivery("a"), FakeDelivery("b"))

    assert [delivery.task_id for delivery in found.clear()] == ["a", "b"]
    assert not found
    assert found.kinds() == []
