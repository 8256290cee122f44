import pytest

from workers.refill import MOST_UNHEARD, PATIENCE, group_of, refill


@pytest.mark.parametrize(("slots", "group"), [(1, 1), (4, 1), (15, 1), (16, 4), (32, 8), (1024, 8)])
def test_a_group_is_a_quarter_of_many_slots_and_eight_at_most(slots: int, group: int) -> None:
    assert group_of(slots) == group


def test_under_a_backlog_slots_are_refilled_in_groups() -> None:
    assert refill(slots=32, busy=25, waiting=100, unheard=0, waited=0.0) == 0
    assert refill(slots=32, busy=24, waiting=100, unheard=0, waited=0.0) == 8


def test_beside_long_answers_a_slot_does_not_wait_for_ever() -> None:
    assert refill(slots=32, busy=31, waiting=100, unheard=0, waited=0.5 * PATIENCE) == 0
    assert refill(slots=32, busy=31, waiting=100, unheard=0, waited=PATIENCE) == 1


def test_nobody_waits_for_company_while_there_is_a_slot_for_all() -> None:
    assert refill(slots=32, busy=30, waiting=2, unheard=0, waited=0.0) == 2


def test_the_engines_own_queue_stays_below_its_bound() -> None:
    assert refill(slots=1024, busy=0, waiting=1024, unheard=0, waited=0.0) == MOST_UNHEARD
    assert refill(slots=1024, busy=200, waiting=824, unheard=MOST_UNHEARD, waited=0.0) == 0
