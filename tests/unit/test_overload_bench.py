"""The overload benchmark judges others, so it is judged: its trace, and each broken promise it must see."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

import pytest

from benchmarks.overload_findings import (
    Found,
    Phase,
    Sent,
    is_fault,
    is_imposed,
    is_unlabelled,
    is_without_retry_after,
)
from benchmarks.overload_trace import Ask, trace

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ASK = Ask(0.0, "own", "standard", 400, None, "Tell me.")
SENT = Sent(ASK, NOW.timestamp(), 0.01, 202, job_id="job_1")
FULL = {"level": 0, "name": "full", "reason": None, "source_job_id": None}
CUT = {"level": 1, "name": "truncate", "reason": "84 wait", "source_job_id": None}


def found(
    label: dict[str, Any] = FULL, *, tokens: int = 400, reason: str = "length", sent: Sent = SENT, **job: Any
) -> Found:
    document = {
        "status": "completed",
        "degradation": label,
        "usage": {"total_tokens": tokens and tokens + 9, "completion_tokens": tokens},
        "output": {"text": "x", "finish_reason": reason},
        "timings": {"queue_ms": 250.0},
        "started_at": (NOW + timedelta(seconds=4)).isoformat(),
        "finished_at": (NOW + timedelta(seconds=5)).isoformat(),
    }
    return Found(sent, document | job)


def test_the_trace_is_what_it_says_and_the_same_for_one_seed() -> None:
    asks = trace(rate=100.0, seconds=60.0, seed=7)

    kinds, classes = Counter(a.kind for a in asks), Counter(a.service_class for a in asks)
    assert len(asks) == pytest.approx(6000, rel=0.05)
    assert median(a.max_tokens for a in asks) == pytest.approx(384, rel=0.05)
    assert kinds["template"] / len(asks) == pytest.approx(0.3, abs=0.03)
    assert kinds["repeat"] / len(asks) == pytest.approx(0.2, abs=0.03)
    assert classes["premium"] / len(asks) == pytest.approx(0.2, abs=0.03)
    assert classes["bulk"] / len(asks) == pytest.approx(0.2, abs=0.03)
    assert any(a.allow == () for a in asks)
    assert asks == trace(rate=100.0, seconds=60.0, seed=7)


@pytest.mark.parametrize(
    ("one", "broken"),
    [
        (found(), False),
        (found(tokens=128), True),
        (found(tokens=30, reason="stop"), False),
        (found(CUT, tokens=128), False),
        (found({**CUT, "reason": None}, tokens=128), True),
        (found(tokens=0, reason="stop"), True),
        (found({**FULL, "source_job_id": "job_0"}, tokens=0, reason="stop"), False),
        (found({"level": 3, "name": "similar", "reason": "x", "source_job_id": None}, tokens=0), True),
        (found(CUT, tokens=128, sent=replace(SENT, status=200, level_header="0")), True),
        (found(CUT, tokens=128, sent=replace(SENT, status=200, level_header="1")), False),
    ],
)
def test_an_answer_that_does_not_say_what_it_is_is_seen(one: Found, broken: bool) -> None:
    assert is_unlabelled(one) is broken


@pytest.mark.parametrize(
    ("allow", "service_class", "broken"),
    [
        (None, "standard", False),
        (None, "bulk", True),
        ((), "premium", True),
        (("template",), "premium", True),
        (("truncate",), "premium", False),
    ],
)
def test_a_level_that_was_refused_is_seen(
    allow: tuple[str, ...] | None, service_class: str, broken: bool
) -> None:
    ask = replace(ASK, allow=allow, service_class=service_class)

    assert is_imposed(found(CUT, sent=replace(SENT, ask=ask))) is broken


def test_a_refusal_without_a_time_and_a_fault_are_seen() -> None:
    refused = Found(replace(SENT, status=429, job_id=None), None)

    assert is_without_retry_after(refused)
    assert not is_without_retry_after(Found(replace(SENT, status=429, retry_after="7"), None))
    assert [is_fault(Found(replace(SENT, status=status), None)) for status in (200, 202, 429, 0, 500)] == [
        False,
        False,
        False,
        True,
        True,
    ]


def test_answers_that_end_too_soon_are_seen() -> None:
    """Or the engine has next to nothing to do, and the policy nothing to save."""
    repeat = replace(SENT, ask=replace(ASK, kind="repeat"))
    phase = Phase("steady", [found(), found(tokens=35, reason="stop"), found(tokens=35, sent=repeat)], 0.0)

    assert phase.length_share == 0.5


def test_an_answer_took_until_it_came_also_where_it_was_known_only_at_the_claim() -> None:
    template = {"level": 2, "name": "template", "reason": "84 wait", "source_job_id": None}
    until = NOW.timestamp() + 60

    at_once = found(template, tokens=0, sent=replace(SENT, status=200))
    at_the_claim = found(template, tokens=0)

    assert (at_once.seconds(until), at_the_claim.seconds(until)) == (0.01, 5.0)


def test_what_has_no_answer_has_waited_until_now() -> None:
    still = found(status="queued", timings=None)
    phase = Phase("3x", [found(), still], NOW.timestamp() + 60)

    assert phase.latencies("standard") == [5.0, 60.0]
    assert phase.answered_share == 0.5


def test_the_error_of_an_estimate_is_a_part_of_the_wait() -> None:
    promised = replace(SENT, promised=NOW + timedelta(seconds=3))
    long = found(sent=promised, timings={"queue_ms": 4000.0})

    assert Phase("steady", [long, found(sent=promised)], 0.0).start_error(after=0.0) == pytest.approx(0.25)
