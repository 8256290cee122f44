from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from queues.waiting_reason import Queued, why_it_waits

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FULL = Queued(
    "m",
    "waiting",
    waits_since=NOW - timedelta(minutes=2),
    now=NOW,
    workers=1,
    ready=1,
    slots=4,
    running=4,
    ahead=7,
)


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ({"state": "scheduled", "available_at": NOW, "hold": "paused"}, "not_before"),
        ({"state": "scheduled", "available_at": NOW, "attempt": 1}, "backoff"),
        ({"hold": "paused", "workers": 0, "ready": 0}, "model_held"),
        ({"workers": 0, "ready": 0, "slots": 0, "running": 0}, "no_worker"),
        ({"ready": 0, "slots": 0, "running": 0, "detail": "loading"}, "engine_not_ready"),
        ({}, "engines_full"),
        ({"running": 3, "waits_since": NOW}, "starting"),
        ({"running": 3, "state": "released", "released_at": NOW - timedelta(seconds=1)}, "starting"),
        ({"running": 3, "state": "released", "released_at": NOW - timedelta(minutes=1)}, "not_claimed"),
        ({"running": 3}, "not_released"),
    ],
)
def test_the_first_reason_that_is_enough_is_named(what: dict[str, Any], code: str) -> None:
    assert why_it_waits(replace(FULL, **what)).code == code


def test_a_full_engine_names_the_jobs_ahead_and_the_time() -> None:
    sentence = why_it_waits(replace(FULL, starts_in=timedelta(seconds=80))).sentence

    assert "All 4 slots of m are in use, and 7 jobs of its class came before it" in sentence
    assert "about 80 s" in sentence


def test_what_an_engine_says_of_itself_is_passed_on() -> None:
    sentence = why_it_waits(replace(FULL, ready=0, detail="loading the model")).sentence

    assert sentence == "1 worker of m alive, and none is ready (loading the model)."
