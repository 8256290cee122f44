from datetime import UTC, datetime

import pytest

from queues.limits.quota import until_midnight
from queues.limits.windows import Counted, remaining, room_after, used

SPAN = 60.0


def at(seconds: float, counts: list[int]) -> Counted:
    """What a counter shows `seconds` after the last window of `counts` began."""
    return Counted(counts[-2], SPAN - seconds, counts[-1], SPAN - seconds)


def test_the_earlier_window_counts_by_its_overlap() -> None:
    counted = at(45, [40, 5])

    assert used(counted, span=SPAN) == 15
    assert remaining(counted, limit=20, span=SPAN) == 5


def test_there_is_room_at_once_where_it_fits() -> None:
    assert room_after(at(45, [40, 5]), limit=20, span=SPAN, cost=5) == 0


def test_what_never_fits_waits_a_whole_window() -> None:
    assert room_after(at(0, [0, 0]), limit=20, span=SPAN, cost=21) == SPAN


@pytest.mark.parametrize(("before", "current"), [(40, 5), (40, 0), (20, 20), (0, 20), (7, 13), (60, 19)])
@pytest.mark.parametrize("seconds", [0, 10, 45, 59])
@pytest.mark.parametrize("cost", [1, 5, 20])
def test_after_the_wait_it_fits_and_just_before_it_does_not(
    before: int, current: int, seconds: float, cost: int
) -> None:
    counted = at(seconds, [before, current])

    wait = room_after(counted, limit=20, span=SPAN, cost=cost)

    def load(later: float) -> float:
        if seconds + later < SPAN:
            return used(at(seconds + later, [before, current]), span=SPAN)
        return used(at(seconds + later - SPAN, [current, 0]), span=SPAN)

    assert load(wait + 0.001) + cost <= 20 + 1e-9
    if wait > 0.01:
        assert load(wait - 0.01) + cost > 20


def test_a_day_ends_at_midnight_utc() -> None:
    assert until_midnight(datetime(2030, 12, 31, 23, 59, 30, tzinfo=UTC)) == 30
