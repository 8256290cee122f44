"""The closed set of statuses and their legal changes."""

import pytest

from models.lifecycle import LIVE, MOVES, TERMINAL, Status, attempts_left, can_move, sources


def test_a_terminal_status_never_changes() -> None:
    assert all(not MOVES[status] for status in TERMINAL)


def test_every_live_status_can_reach_every_terminal_status_it_should() -> None:
    reachable: dict[Status, set[Status]] = {}
    for start in LIVE:
        seen, edge = set(), {start}
        while edge:
            seen |= edge
            edge = {to for status in edge for to in MOVES[status]} - seen
        reachable[start] = seen
    assert reachable[Status.QUEUED] >= TERMINAL
    assert {Status.COMPLETED, Status.FAILED, Status.CANCELLED} <= reachable[Status.CANCELLING]


@pytest.mark.parametrize(
    ("current", "to", "legal"),
    [
        (Status.QUEUED, Status.RUNNING, True),
        (Status.QUEUED, Status.COMPLETED, True),
        (Status.RUNNING, Status.QUEUED, True),
        (Status.RUNNING, Status.CANCELLED, False),
        (Status.CANCELLING, Status.COMPLETED, True),
        (Status.CANCELLING, Status.QUEUED, False),
        (Status.COMPLETED, Status.FAILED, False),
    ],
)
def test_moves(current: Status, to: Status, *, legal: bool) -> None:
    assert can_move(current, to) is legal


def test_sources_are_the_moves_read_backwards() -> None:
    assert all((to in MOVES[source]) == (source in sources(to)) for source in Status for to in Status)


def test_an_excused_attempt_is_not_counted() -> None:
    assert attempts_left(attempt=3, excused=0, limit=3) == 0
    assert attempts_left(attempt=3, excused=2, limit=3) == 2
