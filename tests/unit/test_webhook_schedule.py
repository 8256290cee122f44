from datetime import UTC, datetime, timedelta

import pytest

from core.settings import STANDARD_SCHEDULE
from queues.webhook_schedule import again_in, retry_after

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
FOREVER = timedelta(days=1000)
DAY = timedelta(days=1)


def pause(
    tries: int, *, asked: timedelta | None = None, left: timedelta = FOREVER, dice: float = 0.5
) -> object:
    return again_in(tries, schedule=STANDARD_SCHEDULE, left=left, asked=asked, dice=dice)


def test_the_schedule_is_the_one_of_standard_webhooks() -> None:
    hours = [5 / 3600, 5 / 60, 0.5, 2, 5, 10, 14, 20, 24]

    assert [pause(n) for n in range(1, 11)] == [*(timedelta(hours=h) for h in hours), None]


def test_jitter_moves_a_pause_by_a_tenth_both_ways() -> None:
    assert (pause(4, dice=0.0), pause(4, dice=1.0)) == (timedelta(hours=1.8), timedelta(hours=2.2))


def test_the_last_attempt_is_made_when_the_three_days_are_over() -> None:
    assert pause(9, left=timedelta(hours=3)) == timedelta(hours=3)
    assert pause(9, left=timedelta(0)) is None


def test_what_a_receiver_asks_for_counts_in_place_of_the_schedule() -> None:
    minute = timedelta(minutes=1)

    assert pause(1, asked=minute, dice=0.0) == minute
    assert pause(8, asked=minute, dice=1.0) == minute * 1.1
    assert pause(8, asked=minute, left=timedelta(seconds=2)) == timedelta(seconds=2)


@pytest.mark.parametrize(
    ("header", "asked"),
    [
        (None, None),
        ("120", timedelta(seconds=120)),
        (" 7 ", timedelta(seconds=7)),
        ("0", None),
        ("999999999999999999999", DAY),
        ("Tue, 01 Jan 2030 12:00:30 GMT", timedelta(seconds=30)),
        ("Tue, 01 Jan 2020 12:00:30 GMT", None),
        ("soon", None),
        ("-5", None),
        ("\uff11\uff12", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, asked: timedelta | None) -> None:
    assert retry_after(header, NOW) == asked
