from typing import Any

import pytest

from api.attention import concerns

QUEUE = {"service_class": "standard", "is_shed": False}
MODEL: dict[str, Any] = {
    "name": "m",
    "state": "serving",
    "level": 0,
    "level_name": "full",
    "rule": "none",
    "reason": "",
    "queues": [QUEUE],
}
WORKER = {"name": "w1", "state": "ready", "detail": ""}
CALM = {"workers": 1, "waiting": 0, "dead_letters": 0, "leases_overdue": 0, "deliveries_late_ms": 0.0}


def sentences(
    totals: dict[str, Any] | None = None,
    worker: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
) -> list[str]:
    overview = {
        "totals": CALM | (totals or {}),
        "workers": [WORKER | (worker or {})],
        "models": [MODEL | (model or {})],
    }
    return [f"{one['sentence']} {one['remedy']}" for one in concerns(overview)]


def test_a_calm_platform_needs_nobody() -> None:
    assert sentences() == []


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (
            {"totals": {"workers": 0, "waiting": 7}},
            "No worker is alive and 7 jobs wait. Start one: penstock worker",
        ),
        ({"totals": {"dead_letters": 1}}, "One dead letter."),
        ({"totals": {"leases_overdue": 3}}, "3 leases ran out and nobody reaped them."),
        ({"totals": {"deliveries_late_ms": 240_000.0}}, "Webhooks are late by 4 min."),
        ({"worker": {"state": "starting", "detail": "loads"}}, "w1 is starting: loads."),
        ({"model": {"state": "paused"}}, "m is paused: nothing of it begins. penstock models resume m"),
        ({"model": {"queues": [QUEUE | {"is_shed": True}]}}, "m turns new standard work away."),
        (
            {"model": {"level": 1, "level_name": "truncate", "reason": "60 wait"}},
            "m is at level 1 (truncate): 60 wait.",
        ),
        ({"model": {"level": 2, "rule": "pin"}}, "penstock degradation unpin m"),
    ],
)
def test_what_is_wrong_is_said_with_what_helps(what: dict[str, Any], said: str) -> None:
    [sentence] = sentences(**what)

    assert said in sentence


def test_the_worst_comes_first() -> None:
    first, second = sentences(totals={"dead_letters": 2}, model={"queues": [QUEUE | {"is_shed": True}]})

    assert (first.startswith("m turns"), second.startswith("2 dead")) == (True, True)
