"""What is counted, and when: once for a group, once for an end."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.meter import RequestMeter
from core.metrics import CLASSES, REGISTRY
from models.degradation import Degradation, Level
from models.lifecycle import Status
from models.repositories.execution import Claim, Ending
from models.repositories.fleet import WorkerRow
from models.repositories.overview import Backlog, Deliveries, Ledger
from models.repositories.submission import NewJob, ReadyAnswer, Receipt, Reception
from models.views import JobView
from queues.observer import Overview, show, stop_showing
from queues.policy.pressure import Pressure, Reading
from queues.policy.state import State, Verdict
from queues.submission import count_accepted
from workers.gpu import is_visible
from workers.meter import DeskMeter

NOW = datetime(2026, 1, 1, tzinfo=UTC)
VIEW = JobView(
    id="job_1",
    tenant_id="acme",
    model="m",
    service_class="standard",
    priority=5,
    status=Status.COMPLETED,
    version=3,
    created_at=NOW,
    finished_at=NOW + timedelta(seconds=4),
    attempt=1,
)
USAGE = {"prompt_tokens": 40, "completion_tokens": 11, "prompt_tokens_details": {"cached_tokens": 30}}
TIMINGS = {"queue_ms": 1000.0, "first_token_ms": 500.0, "run_ms": 2500.0}


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Growth:
    """How much samples grew since it was made."""

    def __init__(self, *wanted: tuple[str, dict[str, str]]) -> None:
        self._wanted = wanted
        self._before = [value(name, **labels) for name, labels in wanted]

    def since(self) -> list[float]:
        after = [value(name, **labels) for name, labels in self._wanted]
        return [round(now - before, 6) for now, before in zip(after, self._before, strict=True)]


def test_an_end_counts_its_tokens_and_its_times_once() -> None:
    kind = {"model": "m", "service_class": "standard"}
    growth = Growth(
        ("penstock_jobs_finished_total", kind | {"status": "completed"}),
        ("penstock_prompt_tokens_total", {"model": "m"}),
        ("penstock_cached_prompt_tokens_total", {"model": "m"}),
        ("penstock_completion_tokens_total", {"model": "m"}),
        ("penstock_job_queue_seconds_sum", kind),
        ("penstock_job_first_token_seconds_sum", kind),
        ("penstock_job_wait_to_first_token_seconds_sum", kind),
        ("penstock_job_output_token_seconds_sum", kind),
        ("penstock_job_response_seconds_sum", kind),
    )
    meter = DeskMeter("m")

    meter.ended(VIEW, Ending("job_1", 1, Status.COMPLETED, NOW, usage=USAGE, timings=TIMINGS))

    assert growth.since() == [1, 40, 30, 11, 1.0, 0.5, 1.5, 0.2, 4.0]
    assert (meter.finished, meter.prompt, meter.cached, meter.written) == (1, 40, 30, 11)


def test_a_failure_is_counted_by_its_code_and_its_answer_has_no_time() -> None:
    failed = replace(VIEW, status=Status.FAILED)
    growth = Growth(
        ("penstock_job_failures_total", {"model": "m", "code": "engine_refused"}),
        ("penstock_job_response_seconds_count", {"model": "m", "service_class": "standard"}),
    )

    ending = Ending("job_1", 1, Status.FAILED, NOW, error={"code": "engine_refused"}, timings=TIMINGS)
    DeskMeter("m").ended(failed, ending)

    assert growth.since() == [1, 0]


def test_a_group_is_counted_as_one_and_what_was_not_claimed_apart() -> None:
    growth = Growth(
        ("penstock_dispatch_group_jobs_count", {"model": "m"}),
        ("penstock_dispatch_group_jobs_sum", {"model": "m"}),
        ("penstock_jobs_not_claimed_total", {"model": "m"}),
    )

    DeskMeter("m").claimed([Claim(VIEW, {}, None, 10)] * 3, asked=5, seconds=0.01)

    assert growth.since() == [1, 3, 2]


@pytest.mark.parametrize(
    ("waited", "promised", "counted"), [(10.0, 8.0, [1, 0.2]), (10.0, None, [0, 0]), (0.9, 0.0, [0, 0])]
)
def test_an_estimated_start_is_judged_at_the_claim_where_the_wait_was_long(
    waited: float, promised: float | None, counted: list[float]
) -> None:
    name, kind = "penstock_start_estimate_error_ratio", {"model": "m", "service_class": "standard"}
    growth = Growth((f"{name}_count", kind), (f"{name}_sum", kind))
    view = replace(
        VIEW,
        started_at=NOW + timedelta(seconds=waited),
        estimated_start_at=None if promised is None else NOW + timedelta(seconds=promised),
    )

    DeskMeter("m").claimed([Claim(view, {}, None, 10)], asked=1, seconds=0.01)

    assert growth.since() == counted


def new_job(service_class: str, cost: int) -> NewJob:
    return NewJob(
        id="job_1",
        tenant_id="acme",
        model="m",
        service_class=service_class,
        priority=5,
        cost=cost,
        fingerprint="f",
        request={},
        created_at=NOW,
    )


def test_an_answer_without_an_engine_is_counted_by_its_level_and_as_an_end() -> None:
    growth = Growth(
        ("penstock_answers_total", {"model": "m", "level": "similar"}),
        ("penstock_answers_total", {"model": "m", "level": "full"}),
        ("penstock_jobs_finished_total", {"model": "m", "service_class": "bulk", "status": "completed"}),
    )
    label = Degradation(Level.SIMILAR, "similar", "busy", similarity=0.95)
    answers = [ReadyAnswer({}, {}, NOW, label), ReadyAnswer({}, {}, NOW)]
    group = [replace(new_job("bulk", 10), answer=answer) for answer in answers]

    count_accepted(group, [Receipt(Reception.CREATED, "job_1")] * 2)

    assert growth.since() == [1, 1, 2]


def test_only_new_jobs_are_arrivals() -> None:
    growth = Growth(
        ("penstock_jobs_accepted_total", {"model": "m", "service_class": "bulk"}),
        ("penstock_tokens_accepted_total", {"model": "m", "service_class": "bulk"}),
        ("penstock_submission_group_jobs_sum", {}),
    )
    group = [new_job("bulk", 10), new_job("bulk", 30), new_job("bulk", 99)]
    words = (Reception.CREATED, Reception.CREATED, Reception.REPLAYED)

    count_accepted(group, [Receipt(word, "job_1") for word in words])

    assert growth.since() == [2, 40, 3]


@pytest.fixture
def client() -> Iterator[httpx.AsyncClient]:
    app = FastAPI()

    @app.post("/things/{thing}")
    async def put_thing(thing: str) -> dict[str, str]:
        return {"thing": thing}

    return httpx.AsyncClient(transport=httpx.ASGITransport(app=RequestMeter(app)), base_url="http://test")


async def test_a_request_is_counted_by_its_route_and_not_by_its_address(client: httpx.AsyncClient) -> None:
    labels = {"route": "/things/{thing}", "method": "POST", "status": "200"}
    growth = Growth(
        ("penstock_http_request_seconds_count", labels),
        ("penstock_http_response_bytes_sum", {"route": "/things/{thing}"}),
    )

    await client.post("/things/one")
    await client.post("/things/two")

    assert growth.since() == [2, 2 * len('{"thing":"one"}')]
    assert value("penstock_http_requests_in_progress") == 0


async def test_addresses_and_methods_that_nobody_serves_make_no_series(client: httpx.AsyncClient) -> None:
    labels = {"route": "unmatched", "method": "other", "status": "404"}
    growth = Growth(("penstock_http_request_seconds_count", labels))

    for number in range(3):
        await client.request(f"BREW{number}", f"/nothing/{number}")

    assert growth.since() == [3]


PRESSURE = Pressure(at=0.0, classes={"bulk": Reading(jobs=40, wait=10.0)})


def worker(state: str) -> WorkerRow:
    return WorkerRow("w", {"m": 8}, {}, state, "", NOW, NOW)


def seen(**changes: Any) -> Overview:
    backlog = Backlog("m", "bulk", 40, 4000, 10, 1, NOW - timedelta(seconds=90), NOW - timedelta(seconds=30))
    ledger = Ledger([backlog], Deliveries(3, NOW - timedelta(seconds=5)), 2, {"m": 6}, 1)
    values: dict[str, Any] = {
        "at": NOW,
        "ledger": ledger,
        "workers": [worker("ready"), worker("ready"), worker("draining")],
        "depths": {("m", "bulk"): 10},
        "verdicts": {"m": Verdict(State(level=Level.TEMPLATE, shed=frozenset({"bulk"})), PRESSURE)},
    }
    return Overview(**(values | changes))


def test_a_look_is_shown_as_it_was() -> None:
    kind = {"model": "m", "service_class": "bulk"}

    show(seen(), ["m"])

    assert value("penstock_jobs_waiting", **kind) == 40
    assert value("penstock_outbox_jobs", **kind) == 30
    assert value("penstock_oldest_wait_seconds", **kind) == 90
    assert value("penstock_outbox_oldest_seconds", **kind) == 30
    assert value("penstock_predicted_wait_seconds", **kind) == 10
    assert value("penstock_broker_messages", **kind) == 10
    assert value("penstock_slots", model="m") == 16
    assert value("penstock_degradation_level", model="m") == 2
    assert value("penstock_shedding", model="m", service_class="bulk") == 1
    assert value("penstock_shedding", model="m", service_class="premium") == 0
    assert value("penstock_workers", state="ready") == 2
    assert value("penstock_webhook_delivery_late_seconds") == 5
    assert value("penstock_leases") == 6


def test_a_class_without_a_backlog_is_shown_as_zero() -> None:
    show(seen(), ["m"])

    waiting = {name: value("penstock_jobs_waiting", model="m", service_class=name) for name in CLASSES}
    assert waiting == {"premium": 0, "standard": 0, "bulk": 40}


def test_nothing_old_stays_when_another_process_leads() -> None:
    show(seen(), ["m"])

    stop_showing()

    labels = {"model": "m", "service_class": "bulk"}
    assert REGISTRY.get_sample_value("penstock_jobs_waiting", labels) is None
    assert value("penstock_upkeep_leads") == 0


def test_a_wait_that_nothing_was_measured_for_is_not_predicted() -> None:
    [backlog] = seen().ledger.backlogs

    assert seen(verdicts={}).predicted_wait(backlog) is None
    assert seen(verdicts={}).predicted_wait(replace(backlog, jobs=0)) == 0


@pytest.mark.parametrize(
    ("chosen", "visible"),
    [
        (None, True),
        ("1", True),
        ("0,1", True),
        ("0", False),
        ("GPU-ab", True),
        ("GPU-cd", False),
        ("", False),
    ],
)
def test_a_worker_tells_of_the_gpus_that_cuda_lets_it_use(chosen: str | None, *, visible: bool) -> None:
    environ = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}

    assert is_visible(1, "GPU-abcd", environ) is visible
