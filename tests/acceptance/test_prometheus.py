"""A real Prometheus reads every process of the running platform, and an alert fires."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path

import httpx
import pytest

from docs.boards import BOARDS
from docs.panel import Panel
from tests import surge
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.local_servers import free_port
from tests.platform import PROCESSES, Platform, running_platform, wait_for
from tests.prometheus import alerts, ask, health, running_prometheus, until
from tests.services import Services

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

JOBS = 24
# What panels need that is not here, or not on every machine.
WITHOUT = {"a GPU", "a worker that was lost", "a job that waited a second"}
PATIENCE = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Watched:
    platform: Platform
    prometheus: httpx.Client
    receiver: WebhookReceiver


@pytest.fixture(scope="module")
def watched(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Five processes with a port each, jobs that ran, and Prometheus over all of it."""
    folder: Path = tmp_path_factory.mktemp("watched")
    ports = {name: free_port() for name in PROCESSES}
    with (
        surge.receiving() as receiver,
        running_platform(services, folder, metrics=ports, **surge.settings(folder, receiver)) as platform,
        running_prometheus(folder, {name: [port] for name, port in ports.items()}) as client,
    ):
        yield Watched(platform, client, receiver)


def run_jobs(platform: Platform) -> None:
    body = {"messages": [{"role": "user", "content": "where is my order"}], "max_tokens": 8}
    with platform.client(platform.key("measured")) as client:
        answer = client.post("/v1/jobs/bulk", json={"jobs": [body] * JOBS}).raise_for_status().json()
        ids = [one["job"]["id"] for one in answer["data"]]
        wait_for(client, ids)
        client.post(f"/v1/jobs/{ids[0]}/feedback", json={"score": 1}).raise_for_status()
        assert client.get("/v1/jobs/nothing").status_code == 404


def total(client: httpx.Client, expression: str) -> float:
    return sum(float(sample["value"][1]) for sample in ask(client, expression))


def _is(client: httpx.Client, expression: str, value: float) -> bool:
    return total(client, expression) == value


def test_every_process_is_up_and_shows_what_it_did(watched: Watched) -> None:
    prometheus = watched.prometheus
    until(lambda: health(prometheus) == dict.fromkeys(PROCESSES, "up"), "every target is up")

    run_jobs(watched.platform)

    # Each process is scraped at its own time.
    for expression, value in {
        'penstock_jobs_finished_total{status="completed"}': JOBS,
        "penstock_jobs_accepted_total": JOBS,
        "penstock_jobs_released_total": JOBS,
        "penstock_completion_tokens_total": 8 * JOBS,
        'penstock_job_wait_to_first_token_seconds_count{model="default"}': JOBS,
        'penstock_feedback_total{score="up"}': 1,
        "penstock_engine_slots": 8,
        'penstock_workers{state="ready"}': 1,
        "penstock_jobs_waiting": 0,
        "penstock_upkeep_leads": 1,
    }.items():
        until(partial(_is, prometheus, expression, value), f"{expression} is {value}")
    assert total(prometheus, 'penstock_refusals_total{code="not_found"}') >= 1
    builds = {sample["metric"]["process"] for sample in ask(prometheus, "penstock_build_info")}
    assert builds == set(PROCESSES)


def test_every_panel_of_every_dashboard_has_something_to_show(watched: Watched) -> None:
    pace = surge.Pace(quiet=8, surge=6, waiting=60, batch_lines=20, kills_worker=False)
    surge.Surge(watched.platform, watched.receiver, pace).run()

    prometheus, began = watched.prometheus, time.monotonic()
    while (silent := _silent(prometheus)) and time.monotonic() < began + PATIENCE:
        time.sleep(1)  # a foreign process that only a probe can see
    assert silent == []


def _silent(client: httpx.Client) -> list[str]:
    """Panels of which no expression has a number now. One that does not parse raises."""
    return [
        f"{name}: {panel.title}"
        for name, (_, panels) in BOARDS.items()
        for panel in panels
        if not _has_number(client, panel) and panel.needs not in WITHOUT
    ]


def _has_number(client: httpx.Client, panel: Panel) -> bool:
    found = [ask(client, expression) for expression, _ in panel.queries]
    return any(isfinite(float(sample["value"][1])) for samples in found for sample in samples)


def test_no_series_names_a_tenant_or_a_job(watched: Watched) -> None:
    values = set()
    for label in watched.prometheus.get("/api/v1/labels").json()["data"]:
        values |= set(watched.prometheus.get(f"/api/v1/label/{label}/values").json()["data"])

    assert not [value for value in values if value.startswith(("job_", "ten_", "key_", "req_", "evt_"))]
    assert not {"measured", "acme", "globex", "initech"} & values


def test_an_alert_fires_when_the_last_worker_goes(watched: Watched) -> None:
    # A heartbeat that a busy machine delays makes it pending for a moment.
    until(lambda: "PenstockNoWorker" not in alerts(watched.prometheus), "nothing is wrong yet")

    watched.platform.stop("worker")

    until(lambda: alerts(watched.prometheus).get("PenstockNoWorker") == "firing", "the alert fires")
