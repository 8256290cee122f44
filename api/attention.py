"""What an operator should know first: what is wrong, and what helps. Pure."""

from collections.abc import Iterator
from typing import Any, Final

from models.degradation import Level

_LATE: Final = 60_000  # milliseconds that a webhook may be late before anybody is told


def concerns(overview: dict[str, Any]) -> list[dict[str, str]]:
    """Of a rendered overview: the platform's own troubles, then the workers', then the models'."""
    found = [*_platform(overview["totals"]), *_workers(overview["workers"]), *_models(overview["models"])]
    return sorted(found, key=lambda one: one["tone"] != "bad")


def _concern(tone: str, sentence: str, remedy: str) -> dict[str, str]:
    return {"tone": tone, "sentence": sentence, "remedy": remedy}


def _platform(totals: dict[str, Any]) -> Iterator[dict[str, str]]:
    if not totals["workers"]:
        waiting = {0: "", 1: " and one job waits"}.get(
            totals["waiting"], f" and {totals['waiting']} jobs wait"
        )
        yield _concern("bad", f"No worker is alive{waiting}.", "Start one: penstock worker")
    if letters := totals["dead_letters"]:
        count = "One dead letter" if letters == 1 else f"{letters} dead letters"
        yield _concern(
            "warn", f"{count}.", "Look at why, then requeue or discard: penstock dead-letters list"
        )
    if totals["leases_overdue"]:
        yield _concern(
            "bad",
            f"{totals['leases_overdue']} leases ran out and nobody reaped them.",
            "Is penstock upkeep running?",
        )
    if totals["deliveries_late_ms"] > _LATE:
        minutes = round(totals["deliveries_late_ms"] / 60_000)
        yield _concern("warn", f"Webhooks are late by {minutes} min.", "Is penstock deliver running?")


def _workers(workers: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    for worker in workers:
        if worker["state"] not in {"ready", "draining"}:
            said = f": {worker['detail']}" if worker["detail"] else ""
            yield _concern(
                "warn",
                f"{worker['name']} is {worker['state']}{said}.",
                "A model that loads takes minutes; else its log has its engine's last lines.",
            )


def _models(models: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    for model in models:
        name = model["name"]
        if model["state"] != "serving":
            yield _concern(
                "warn", f"{name} is {model['state']}: nothing of it begins.", f"penstock models resume {name}"
            )
        shed = [queue["service_class"] for queue in model["queues"] if queue["is_shed"]]
        if shed:
            yield _concern(
                "bad",
                f"{name} turns new {' and '.join(shed)} work away.",
                "Add workers, or wait until less waits.",
            )
        if model["level"] > Level.FULL:
            yield _concern(
                "warn",
                f"{name} is at level {model['level']} ({model['level_name']}): {model['reason']}.",
                "It ends with the pressure; more workers end it sooner."
                if model["rule"] != "pin"
                else f"penstock degradation unpin {name}",
            )
