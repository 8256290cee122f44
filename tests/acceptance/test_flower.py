"""Flower against the running system: who works, what waits, and how each task ended."""

from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from tests.flower import (
    FlowerNotInstalled,
    build_environment,
    cancel_running,
    finished,
    paused_worker,
    queue_lengths,
    running_flower,
    submit,
    submit_refused,
    tasks,
    until,
)
from tests.platform import Platform, running_platform
from tests.services import Services

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

CLASSES = ("premium", "standard", "bulk")


@pytest.fixture(scope="module")
def flower_environment() -> None:
    try:
        build_environment()
    except FlowerNotInstalled as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="module")
def platform(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    # A worker that is paused is an overload, and a truncated job ends before it can be cancelled.
    folder = tmp_path_factory.mktemp("platform")
    with running_platform(services, folder, OVERLOAD__ENABLED="false") as running:
        yield running


@pytest.fixture(scope="module")
def flower(flower_environment: None, platform: Platform, services: Services) -> Iterator[httpx.Client]:
    if services.broker_api is None:
        pytest.skip("RabbitMQ's management plugin is not enabled")
    with running_flower(platform, services.broker_api) as client:
        yield client


@pytest.fixture(scope="module")
def client(platform: Platform) -> Iterator[httpx.Client]:
    with platform.client(platform.key("watched")) as client:
        yield client


def test_the_worker_is_listed_online_with_its_queues(flower: httpx.Client, services: Services) -> None:
    workers = flower.get("/api/workers", params={"refresh": True}).raise_for_status().json()
    online = flower.get("/api/workers", params={"status": True}).raise_for_status().json()

    assert set(online.values()) == {True}
    consumed = [{queue["name"] for queue in one["active_queues"]} for one in workers.values()]
    assert class_queues(services) in consumed


def test_every_queue_of_ours_is_listed_with_its_depth(
    flower: httpx.Client, client: httpx.Client, platform: Platform, services: Services
) -> None:
    until(lambda: None not in queue_lengths(flower).values(), lambda: queue_lengths(flower))
    assert class_queues(services) <= set(queue_lengths(flower))

    premium = f"{services.namespace}.jobs.default.premium"
    with paused_worker(platform):
        waiting = [submit(client, service_class="premium") for _ in range(3)]
        until(lambda: queue_lengths(flower)[premium] == 3, lambda: queue_lengths(flower))

    assert {finished(client, job_id) for job_id in waiting} == {"completed"}


def test_tasks_are_shown_with_their_final_states(flower: httpx.Client, client: httpx.Client) -> None:
    completed = [submit(client, service_class=service_class) for service_class in CLASSES]
    refused, cancelled = submit_refused(client), cancel_running(client)
    jobs = dict.fromkeys(completed, ("completed", "SUCCESS"))
    jobs |= {refused: ("failed", "FAILURE"), cancelled: ("cancelled", "REVOKED")}
    states = {job_id: state for job_id, (_, state) in jobs.items()}

    assert {job_id: finished(client, job_id) for job_id in jobs} == {
        job_id: status for job_id, (status, _) in jobs.items()
    }
    until(lambda: seen_states(flower, states) == states, lambda: seen_states(flower, states))

    shown = tasks(flower)
    assert {shown[job_id]["name"] for job_id in jobs} == {"penstock.generate"}
    assert all(shown[job_id]["result"] == "completed: 24 tokens" for job_id in completed)
    assert "engine_refused" in shown[refused]["exception"]
    assert "where is my order" not in str(shown)


@pytest.mark.parametrize(
    "path", ["/", "/tasks", "/broker", "/api/workers", "/api/tasks", "/api/queues/length"]
)
def test_a_page_without_the_password_is_refused(flower: httpx.Client, path: str) -> None:
    assert httpx.get(f"{flower.base_url}{path}").status_code == 401
    assert httpx.get(f"{flower.base_url}{path}", auth=("penstock", "wrong")).status_code == 401
    assert flower.get(path).status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/healthcheck"])
def test_two_pages_ask_for_no_password_as_the_docs_warn(flower: httpx.Client, path: str) -> None:
    assert httpx.get(f"{flower.base_url}{path}").status_code == 200


def test_flower_without_a_password_does_not_start(flower: httpx.Client, platform: Platform) -> None:
    open_to_all = replace(platform, environment=platform.environment | {"PENSTOCK_FLOWER__PASSWORD": ""})

    with pytest.raises(RuntimeError, match="Set PENSTOCK_FLOWER__PASSWORD"):
        open_to_all.run("flower")


def class_queues(services: Services) -> set[str]:
    return {f"{services.namespace}.jobs.default.{service_class}" for service_class in CLASSES}


def seen_states(flower: httpx.Client, wanted: dict[str, str]) -> dict[str, str]:
    return {job_id: task["state"] for job_id, task in tasks(flower).items() if job_id in wanted}
