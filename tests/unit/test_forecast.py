"""When a job would start where several classes wait: what the others leave it when their queues end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queues.policy.forecast import seconds_until
from queues.policy.pressure import Reading


def waiting(tokens: int, *, rate: float, arrivals: float = 0.0, jobs: int = 9) -> Reading:
    return Reading(jobs=jobs, tokens=tokens, rate=rate, flow=rate, arrivals=arrivals)


def test_alone_it_is_the_tokens_ahead_at_the_rate_at_which_they_start() -> None:
    assert seconds_until(4000, of="standard", classes={"standard": waiting(4000, rate=1000.0)}) == 4.0


def test_bulk_gets_the_rest_once_the_queue_of_standard_has_ended() -> None:
    classes = {"standard": waiting(7500, rate=750.0), "bulk": waiting(5000, rate=250.0)}

    # Ten seconds beside standard start 2,500 of its tokens, and the other 2,500 start alone.
    assert seconds_until(5000, of="bulk", classes=classes) == pytest.approx(12.5)


def test_a_queue_that_does_not_end_leaves_nothing() -> None:
    classes = {"standard": waiting(7500, rate=750.0, arrivals=750.0), "bulk": waiting(5000, rate=250.0)}

    assert seconds_until(5000, of="bulk", classes=classes) == 20.0


def test_what_still_comes_is_taken_from_what_is_left() -> None:
    classes = {"standard": waiting(3500, rate=750.0, arrivals=400.0), "bulk": waiting(5000, rate=250.0)}

    assert seconds_until(5000, of="bulk", classes=classes) == pytest.approx(10 + 2500 / 600)


def test_two_queues_end_one_after_the_other() -> None:
    classes = {
        "premium": waiting(500, rate=500.0),
        "standard": waiting(4750, rate=375.0),
        "bulk": waiting(10_000, rate=125.0),
    }

    # One second at 125, ten at 250 (standard then has 750), and the rest at all that there is.
    assert seconds_until(10_000, of="bulk", classes=classes) == pytest.approx(
        1 + (4750 - 375) / 750 + (10_000 - 125 - 250 * (4750 - 375) / 750) / 1000
    )


def test_nothing_is_known_without_a_rate() -> None:
    assert seconds_until(10, of="standard", classes={}) is None
    assert seconds_until(10, of="standard", classes={"standard": Reading(jobs=1, tokens=10)}) is None
    assert seconds_until(0, of="standard", classes={"standard": Reading()}) == 0.0


readings = st.builds(
    lambda tokens, rate, part: waiting(tokens, rate=rate, arrivals=part * rate),
    st.integers(0, 10_000),
    st.floats(1.0, 1000.0),
    st.floats(0.0, 1.5),
)


@given(st.dictionaries(st.sampled_from(["premium", "standard", "bulk"]), readings), st.integers(1, 10_000))
def test_it_is_never_later_than_at_its_own_rate_nor_sooner_than_at_all_of_them(
    classes: dict[str, Reading], ahead: int
) -> None:
    for name, reading in classes.items():
        found = seconds_until(ahead, of=name, classes=classes)

        rate = reading.rate or 1.0
        total = sum(one.rate or 0.0 for one in classes.values())
        assert found is not None
        assert ahead / total * 0.999 <= found <= ahead / rate * 1.001
