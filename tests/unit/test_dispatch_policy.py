"""What a worker counts for those who measure the pressure, and what it cuts at the claim."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from core.overload_settings import OverloadSettings
from models.catalogue import Catalogue
from models.degradation import Level
from models.lifecycle import Status
from models.repositories.execution import Claim
from models.views import JobView
from queues.policy.pressure import Pressure
from queues.policy.state import State, Verdict
from workers.dispatch_policy import DispatchPolicy

VIEW = JobView(
    id="job_1",
    tenant_id="acme",
    model="default",
    service_class="standard",
    priority=5,
    status=Status.RUNNING,
    version=2,
    created_at=datetime(2030, 1, 1, tzinfo=UTC),
    timings={"queue_ms": 400.0, "first_token_ms": 100.0},
)


class Board:
    def __init__(self, level: Level) -> None:
        self._level = level
        self.started: list[tuple[str, int]] = []
        self.firsts: list[float] = []

    def verdict(self, model: str) -> Verdict:
        return Verdict(State(level=self._level, reason="84 wait"), Pressure(at=0.0))

    def note_started(self, model: str, service_class: str, cost: int) -> None:
        self.started.append((service_class, cost))

    def note_first_token(self, model: str, milliseconds: float) -> None:
        self.firsts.append(milliseconds)


def policy(board: Any) -> DispatchPolicy:
    return DispatchPolicy(board, Catalogue.bundled().get(None), OverloadSettings())


def test_what_starts_counts_at_what_it_waited_for_although_it_is_cut() -> None:
    board = Board(Level.TRUNCATE)

    claim = policy(board).ask(Claim(VIEW, {"prompt": "x", "max_tokens": 400}, None, 410))

    assert claim.view.degradation is not None
    assert claim.cost == 410 - 400 + 128
    assert board.started == [("standard", 410)]


@pytest.mark.parametrize(
    ("level", "slots", "bulk", "most"),
    [
        (Level.FULL, 8, 8, {}),
        (Level.TRUNCATE, 8, 0, {"bulk": 2}),
        (Level.SIMILAR, 8, 5, {"bulk": 0}),
        (Level.SIMILAR, 2, 0, {"bulk": 1}),
    ],
)
def test_under_pressure_bulk_begins_in_a_part_of_the_slots(
    level: Level, slots: int, bulk: int, most: dict[str, int]
) -> None:
    assert policy(Board(level)).most(slots=slots, bulk=bulk) == most


@pytest.mark.parametrize(("name", "counted"), [("premium", [500.0]), ("standard", [500.0]), ("bulk", [])])
def test_the_first_tokens_of_bulk_say_nothing_about_overload(name: str, counted: list[float]) -> None:
    board = Board(Level.FULL)

    policy(board).note_ended(replace(VIEW, service_class=name))

    assert board.firsts == counted
