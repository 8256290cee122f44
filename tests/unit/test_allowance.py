"""How much the relay may release."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from queues.allowance import Lane, Pace, allow

ACME = Lane("default", "standard", "acme")
OTHER = Lane("default", "standard", "other")
GROUP = ("default", "standard")


def test_an_empty_lane_may_release_a_whole_window() -> None:
    assert allow([ACME], {}, {GROUP: 8}).lanes == {ACME: 8}


def test_a_lane_that_is_a_window_ahead_releases_nothing() -> None:
    assert allow([ACME], {ACME: 8}, {GROUP: 8}).lanes == {}


def test_a_newcomer_may_release_although_another_tenant_is_a_window_ahead() -> None:
    assert allow([ACME, OTHER], {ACME: 8}, {GROUP: 8}).lanes == {OTHER: 8}


def test_all_tenants_of_a_class_together_are_bounded() -> None:
    lanes = [Lane("default", "standard", f"t{n}") for n in range(10)]
    released = dict.fromkeys(lanes[:3], 8)
    assert allow(lanes, released, {GROUP: 8}).lanes == {}


def test_a_lane_is_refilled_in_steps_and_not_for_every_claim() -> None:
    assert allow([ACME], {ACME: 15}, {GROUP: 16}).lanes == {}
    assert allow([ACME], {ACME: 12}, {GROUP: 16}).lanes == {ACME: 4}


def test_the_window_is_never_less_than_the_slots_and_grows_with_the_rate() -> None:
    horizon = timedelta(milliseconds=250)
    assert Pace(slots=8, rate=4.0).window(horizon, idle=32) == 8
    assert Pace(slots=8, rate=400.0).window(horizon, idle=32) == 100
    assert Pace(slots=0).window(horizon, idle=32) == 32


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 40)),
    st.integers(1, 64),
)
def test_no_allowance_exceeds_the_bounds(ahead: dict[str, int], window: int) -> None:
    lanes = [Lane("default", "standard", name) for name in "abcdefgh"]
    released = {Lane("default", "standard", name): jobs for name, jobs in ahead.items()}
    allowed = allow(lanes, released, {GROUP: window})
    for lane, jobs in allowed.lanes.items():
        assert 0 < jobs <= window - released.get(lane, 0)
        assert jobs <= allowed.classes[GROUP] == 3 * window - sum(released.values())


def test_batches_of_one_tenant_share_its_one_window() -> None:
    lanes = [Lane("default", "bulk", "acme", f"batch_{n}") for n in range(3)]

    allowed = allow(lanes, {lanes[0]: 5}, {("default", "bulk"): 8})

    assert allowed.owners == {("default", "bulk", "acme"): 3}
    assert set(allowed.lanes.values()) == {3}
