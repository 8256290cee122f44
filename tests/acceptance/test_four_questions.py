"""The questions of docs/how-to/operate.md, asked of the running platform by the commands that it names."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import surge
from tests.platform import Platform, running_platform, wait_for
from tests.prometheus import until
from tests.services import Services

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
ASK = {"prompt": "where is my order", "max_tokens": 8}


@pytest.fixture(scope="module")
def platform(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder: Path = tmp_path_factory.mktemp("asked")
    catalogue = folder / "models.toml"
    catalogue.write_text(surge.CATALOGUE, encoding="utf-8")
    with running_platform(services, folder, CATALOGUE=str(catalogue)) as running:
        running.environment["PENSTOCK_KEY"] = running.key("operators", "--scope", "admin")
        yield running


@contextmanager
def paused(platform: Platform) -> Iterator[None]:
    platform.run("models", "pause", "default")
    try:
        yield
    finally:
        platform.run("models", "resume", "default")


def submit(platform: Platform, tenant: str, count: int) -> list[str]:
    with platform.client(platform.key(tenant)) as client:
        return submit_as(client, count)


def submit_as(client: httpx.Client, count: int) -> list[str]:
    answer = client.post("/v1/jobs/bulk", json={"jobs": [ASK] * count}).raise_for_status().json()
    return [one["job"]["id"] for one in answer["data"]]


def top(platform: Platform) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(platform.run("top", "--once", "--json"))
    return found


def test_why_does_a_job_wait_and_which_tenant_fills_the_queue(platform: Platform) -> None:
    with paused(platform):
        [waits, *_] = submit(platform, "large", 20)
        submit(platform, "small", 2)

        why = platform.run("why", waits)
        load = platform.run("tenants", "load").splitlines()
        screen = platform.run("top", "--once")

        assert "default is paused, so nothing of it begins" in why
        assert "penstock models resume default" in why
        assert "queued" in why
        assert [line.split("\t")[1:3] for line in load] == [["large", "20"], ["small", "2"]]
        assert [tenant["name"] for tenant in top(platform)["tenants"]] == ["large", "small"]
        assert "default is paused" in screen


def test_what_did_the_surge_cost_and_is_a_worker_sick(platform: Platform) -> None:
    with platform.client(platform.key("busy")) as client:
        wait_for(client, submit_as(client, 30))
    before = top(platform)
    platform.stop("worker", signal.SIGKILL)
    submit(platform, "late", 3)

    until(lambda: not top(platform)["workers"], "the silent worker is not among the living")
    told = " ".join(one["sentence"] + one["remedy"] for one in top(platform)["attention"])
    report = json.loads(platform.run("report", "15m", "--json"))

    assert [worker["state"] for worker in before["workers"]] == ["ready"]
    assert "No worker is alive and 3 jobs wait" in told
    assert "penstock worker" in told
    [cost] = report["cost"]
    # It is gone, and what it cost until its last heartbeat is not.
    assert cost["worker_hours"] > 0
    assert cost["cost"] == pytest.approx(2.5 * cost["worker_hours"], abs=0.01)
    assert cost["per_million_tokens"] > 0
    assert "busy" in {tenant["tenant"] for tenant in report["tenants"]}
