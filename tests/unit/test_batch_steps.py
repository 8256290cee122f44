from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.repositories.batches import BatchRow
from queues.batches.spool import Placed, in_order
from queues.batches.steps import Step, final_status, next_step

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def batch(status: str, *, late: bool = False, **values: Any) -> BatchRow:
    expires_at = NOW - timedelta(seconds=1) if late else NOW + timedelta(hours=1)
    return BatchRow(
        "batch_1", "t", status, "/v1/completions", "file_1", "bulk", "24h", NOW, expires_at, **values
    )


@pytest.mark.parametrize(
    ("given", "step"),
    [
        (batch("validating"), Step.CHECK),
        (batch("validating", late=True), Step.FINISH),
        (batch("in_progress", total=9, loaded=3), Step.LOAD),
        (batch("in_progress", total=9, loaded=9, completed=8), Step.WAIT),
        (batch("in_progress", total=9, loaded=9, completed=8, failed=1), Step.FINISH),
        (batch("in_progress", total=9, loaded=3, late=True), Step.STOP),
        (batch("in_progress", total=9, loaded=3, completed=1, failed=2, late=True), Step.FINISH),
        (batch("cancelling", total=9, loaded=3, completed=2), Step.STOP),
        (batch("cancelling", total=9, loaded=3, completed=2, failed=1), Step.FINISH),
        (batch("cancelling"), Step.FINISH),
        (batch("finalizing", total=9, loaded=9, completed=9), Step.FINISH),
    ],
)
def test_what_comes_next_follows_from_the_row(given: BatchRow, step: Step) -> None:
    assert next_step(given, NOW) is step


@pytest.mark.parametrize(
    ("given", "expired", "status"),
    [
        (batch("finalizing"), 0, "completed"),
        (batch("finalizing"), 1, "expired"),
        (batch("validating", late=True), 0, "expired"),
        (batch("cancelling", cancelling_at=NOW), 0, "cancelled"),
        (batch("cancelling", cancelling_at=NOW, late=True), 2, "cancelled"),
    ],
)
def test_the_last_status_follows_from_what_ended_it(given: BatchRow, expired: int, status: str) -> None:
    assert final_status(given, expired=expired) == status


def test_groups_come_by_the_length_of_what_they_share_and_a_prefix_of_one_is_none() -> None:
    given = [("b", 50), (None, 0), ("a", 90), ("lone", 500), ("b", 50), ("a", 90), ("c", 90), ("c", 90)]
    lines = [Placed(n, prefix, tokens, None, 0, 0) for n, (prefix, tokens) in enumerate(given)]

    assert [line.number for line in in_order(lines, most=8192)] == [2, 5, 6, 7, 0, 4, 1, 3]
    assert [line.number for line in in_order(lines, most=40)] == [0, 4, 2, 5, 6, 7, 1, 3]
    assert [line.number for line in in_order(lines, most=0)] == list(range(8))
