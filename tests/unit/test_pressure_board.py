"""What a process knows of the pressure between two readings."""

import time
from datetime import timedelta

from fakeredis import FakeAsyncRedis

from queues.policy.pressure import Pressure, Reading
from queues.policy.state import State, Verdict
from queues.pressure_board import PressureBoard, publish


def board(redis: FakeAsyncRedis) -> PressureBoard:
    return PressureBoard(redis, namespace="n", stale=timedelta(seconds=3))


async def read(one: PressureBoard, redis: FakeAsyncRedis, *, at: float) -> None:
    reading = Reading(jobs=1, tokens=100)
    await publish(redis, "n", {"m": Verdict(State(), Pressure(at=at, classes={"standard": reading}))})
    await one._refresh()


async def test_what_was_let_in_before_a_reading_is_in_it_and_what_came_after_is_not() -> None:
    redis = FakeAsyncRedis()
    one = board(redis)
    one.note_admitted("m", "standard", 400)
    one.note_admitted("m", "standard", 100)
    one.note_admitted("m", "premium", 7)

    await read(one, redis, at=time.time() - 1)
    assert (one.ahead("m", "standard"), one.ahead("m", "premium")) == ((2, 500), (1, 7))

    await read(one, redis, at=time.time() + 1)
    assert (one.ahead("m", "standard"), one.ahead("m", "premium")) == ((0, 0), (0, 0))


async def test_without_any_reading_it_counts_on_and_keeps_little() -> None:
    one = board(FakeAsyncRedis())

    for _ in range(5000):
        one.note_admitted("m", "standard", 1)

    assert one.ahead("m", "standard") == (5000, 5000)
    assert len(one._admitted["m", "standard"]) <= 600
