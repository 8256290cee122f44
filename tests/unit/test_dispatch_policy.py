"""What a worker counts for those who measure the pressure, and what it cuts at the claim."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.overload_settings import OverloadSettings
from models.catalogue import Catalogue
from models.degradation import Degradation, Level
from models.lifecycle import Status
from models.repositories.execution import Claim
from models.repositories.submission import ReadyAnswer
from models.views import JobView
from queues.answerers import Question
from queues.policy.pressure import Pressure
from queues.policy.state import State, Verdict
from workers.dispatch_policy import DispatchPolicy, Ruling

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
        since = VIEW.created_at.timestamp() + 1
        return Verdict(State(level=self._level, since=since, reason="84 wait"), Pressure(at=0.0))

    def note_started(self, model: str, service_class: str, cost: int) -> None:
        self.started.append((service_class, cost))

    def note_first_token(self, model: str, milliseconds: float) -> None:
        self.firsts.append(milliseconds)


class Answers:
    """Knows an answer to everything from `level` on, or breaks."""

    def __init__(self, level: Level, *, is_broken: bool = False) -> None:
        self.level = level
        self._is_broken = is_broken

    async def answer(self, question: Question) -> ReadyAnswer | None:
        if self._is_broken:
            raise ValueError("broken")
        label = Degradation(self.level, self.level.label, question.reason)
        return ReadyAnswer({"text": "Known."}, {"total_tokens": 0}, question.expires_at, label)


def policy(board: Any, *answerers: Answers) -> DispatchPolicy:
    return DispatchPolicy(board, Catalogue.bundled().get(None), OverloadSettings(), answerers=answerers)


def claimed(*, request: dict[str, Any] | None = None, **view: Any) -> Claim:
    return Claim(replace(VIEW, **view), {"prompt": "x", "max_tokens": 400, **(request or {})}, None, 410)


async def ruled(level: Level, claim: Claim, *answerers: Answers) -> Ruling:
    return await policy(Board(level), *answerers).ask(claim)


async def test_what_starts_counts_at_what_it_waited_for_although_it_is_cut() -> None:
    board = Board(Level.TRUNCATE)

    claim = (await policy(board).ask(claimed())).claim

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


CUT = Degradation(Level.TRUNCATE, "truncate", "60 wait", max_tokens=128).document()


@pytest.mark.parametrize("label", [None, CUT], ids=["admitted whole", "admitted cut short"])
async def test_who_waited_while_the_level_rose_gets_the_answer_that_it_has_now(label: Any) -> None:
    ruling = await ruled(Level.SIMILAR, claimed(attempt=1, degradation=label), Answers(Level.TEMPLATE))

    assert ruling.answer is not None
    assert ruling.claim.view.degradation == {"level": 2, "name": "template", "reason": "84 wait"}


@pytest.mark.parametrize(
    ("level", "claim", "answerer"),
    [
        (Level.FULL, claimed(), Answers(Level.TEMPLATE)),
        (Level.TEMPLATE, claimed(), Answers(Level.SIMILAR)),
        (
            Level.SIMILAR,
            claimed(request={"degradation": {"allow": ["truncate"]}}),
            Answers(Level.TEMPLATE),
        ),
        (Level.SIMILAR, claimed(service_class="bulk"), Answers(Level.TEMPLATE)),
        (Level.SIMILAR, claimed(batch_id="batch_1"), Answers(Level.TEMPLATE)),
        (Level.SIMILAR, claimed(attempt=2), Answers(Level.TEMPLATE)),
        (Level.SIMILAR, claimed(created_at=VIEW.created_at + timedelta(seconds=9)), Answers(Level.TEMPLATE)),
        (
            Level.SIMILAR,
            claimed(degradation={"level": 1, "name": "fallback", "reason": "x"}),
            Answers(Level.TEMPLATE),
        ),
        (Level.SIMILAR, claimed(), Answers(Level.TEMPLATE, is_broken=True)),
    ],
    ids=[
        "no pressure",
        "a lower level",
        "its caller refuses",
        "bulk waits",
        "a batch waits",
        "it was begun before",
        "it was asked about at its admission",
        "another model is one step down",
        "who should answer is broken",
    ],
)
async def test_who_gets_no_answer_at_the_claim_goes_to_the_engine(
    level: Level, claim: Claim, answerer: Answers
) -> None:
    assert (await ruled(level, claim, answerer)).answer is None


async def test_who_refuses_to_be_cut_short_waits_and_is_not() -> None:
    claim = claimed(request={"degradation": {"allow": ["template", "similar"]}})

    assert (await ruled(Level.SIMILAR, claim)).claim == claim
