"""Which tags the broker is told of, and that none is told of too early."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import acknowledgements
from workers.acknowledgements import Acknowledgements, Tags


@given(st.permutations(range(1, 13)), st.lists(st.integers(1, 5), min_size=1, max_size=12))
def test_each_tag_is_told_once_and_never_before_it_is_settled(order: list[int], sizes: list[int]) -> None:
    tags, told, settled = Tags(), set[int](), set[int]()
    rest = list(order)
    for size in [*sizes, len(order)]:
        burst, rest = rest[:size], rest[size:]
        settled.update(burst)
        tags.settle(burst)
        for tag, multiple in tags.acks(burst):
            assert tag in burst  # the broker knows it still
            named = {one for one in range(1, tag + 1) if one not in told} if multiple else {tag}
            assert named <= settled
            assert not named & told
            told |= named

    assert told == settled == set(order)


def test_a_tag_that_is_never_settled_costs_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acknowledgements, "MOST", 10)
    tags = Tags()

    for tag in range(2, 40):
        tags.settle([tag])
        assert tags.acks([tag]) == [(tag, False)]

    assert len(tags.beyond) == 10


class FakeChannel:
    def __init__(self, *, is_broken: bool = False) -> None:
        self.channel_id = 1
        self.written: list[bytes] = []
        self.is_broken = is_broken
        self.connection: Any = self
        self.transport = self
        self.frame_max = 131_072

    def write(self, data: bytes) -> None:
        if self.is_broken:
            raise BrokenPipeError
        self.written.append(data)


class FakeMessage:
    def __init__(self, channel: FakeChannel, tag: int) -> None:
        self.channel = channel
        self.delivery_tag = tag
        self._state = "RECEIVED"

    @property
    def acknowledged(self) -> bool:
        return self._state != "RECEIVED"

    def reject_log_error(self, _logger: object, _errors: object, _requeue: object) -> None:
        self._state = "REJECTED"


class Hub:
    def __init__(self) -> None:
        self.ready: list[Callable[[], None]] = []

    def soon(self, function: Callable[[], None]) -> None:
        self.ready.append(function)

    def run(self) -> None:
        ready, self.ready = self.ready, []
        for function in ready:
            function()


@pytest.fixture
def hub() -> Hub:
    return Hub()


def ack_frame(tag: int, *, multiple: bool) -> bytes:
    return b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50" + tag.to_bytes(8, "big") + bytes((multiple, 0xCE))


def test_a_burst_is_one_write_and_one_tag(hub: Hub) -> None:
    acks, channel = Acknowledgements(hub.soon), FakeChannel()
    messages = [FakeMessage(channel, tag) for tag in (1, 2, 3)]

    for message in messages:
        acks.ack(message)
    assert len(hub.ready) == 1
    hub.run()

    assert channel.written == [ack_frame(3, multiple=True)]
    assert all(message.acknowledged for message in messages)


def test_what_overtook_an_earlier_message_is_told_alone(hub: Hub) -> None:
    acks, channel = Acknowledgements(hub.soon), FakeChannel()

    acks.ack(FakeMessage(channel, 2))
    acks.ack(FakeMessage(channel, 4))
    hub.run()

    assert channel.written == [ack_frame(2, multiple=False) + ack_frame(4, multiple=False)]


def test_a_rejected_message_is_passed_over_and_never_named(hub: Hub) -> None:
    acks, channel = Acknowledgements(hub.soon), FakeChannel()
    first, second, third = (FakeMessage(channel, tag) for tag in (1, 2, 3))

    acks.reject(third, None, (), requeue=True)
    acks.ack(first)
    acks.ack(second)
    hub.run()

    assert channel.written == [ack_frame(2, multiple=True)]


def test_a_message_of_a_lost_connection_is_left_to_the_broker(hub: Hub) -> None:
    acks, lost, current = Acknowledgements(hub.soon), FakeChannel(), FakeChannel()
    acks.ack(FakeMessage(lost, 1))
    acks.ack(FakeMessage(current, 1))
    lost.connection = None
    hub.run()

    assert lost.written == []
    assert current.written == [ack_frame(1, multiple=False)]


def test_after_a_lost_connection_whose_callbacks_went_with_it_acknowledging_goes_on(hub: Hub) -> None:
    acks, lost, current = Acknowledgements(hub.soon), FakeChannel(), FakeChannel()
    acks.ack(FakeMessage(lost, 1))
    hub.ready.clear()
    acks.forget()

    acks.ack(FakeMessage(current, 1))
    hub.run()

    assert current.written == [ack_frame(1, multiple=False)]


def test_a_write_that_fails_acknowledges_nothing(hub: Hub) -> None:
    acks, channel = Acknowledgements(hub.soon), FakeChannel(is_broken=True)
    message = FakeMessage(channel, 1)

    acks.ack(message)
    hub.run()

    assert not message.acknowledged
