"""SIGTERM: every process ends cleanly, and what a worker had begun is done by the next one."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.platform import Platform, running_platform, wait_for
from tests.services import Services

pytestmark = [pytest.mark.services, pytest.mark.timeout(180)]

LONG = {"prompt": "Tell me about my order.", "max_tokens": 400, "repetition_penalty": 0.5, "temperature": 0}


def test_every_process_ends_with_zero_and_its_work_is_done_by_its_successor(
    services: Services, tmp_path: Path
) -> None:
    with (
        running_platform(services, tmp_path, WORKER__GRACE="50ms") as platform,
        platform.client(platform.key("signals")) as client,
    ):
        bulk = client.post("/v1/jobs/bulk", json={"jobs": [LONG] * 12}).raise_for_status().json()
        ids = [one["job"]["id"] for one in bulk["data"]]
        ended = {name: platform.stop(name) for name in ("worker", "relay", "upkeep", "api")}
        for name in ended:
            platform.start(name)
        platform.wait_until_ready()
        jobs = wait_for(client, ids)
        timelines = [client.get(f"/v1/jobs/{job['id']}/timeline").json()["data"] for job in jobs]

    assert ended == dict.fromkeys(ended, 0)
    assert {job["status"] for job in jobs} == {"completed"}
    assert all(_is_whole(changes) for changes in timelines)


def test_a_new_model_is_served_after_a_hangup_and_a_mistake_changes_nothing(
    services: Services, tmp_path: Path
) -> None:
    catalogue = tmp_path / "models.toml"
    entry = '[[model]]\nname = "{}"\nengine = "llamacpp"\npath = "bundled:support-tiny"\n'
    catalogue.write_text(entry.format("first"))
    with (
        running_platform(services, tmp_path, CATALOGUE=str(catalogue)) as platform,
        platform.client(platform.key("reload")) as client,
    ):
        catalogue.write_text("[[model]]\nname = 3\n")
        refused = _after_hangup(platform, "catalogue_refused")
        before = client.post("/v1/jobs", json={"prompt": "Hello", "model": "second"}).status_code
        catalogue.write_text(entry.format("first") + entry.format("second"))
        read = _after_hangup(platform, "catalogue_read")
        platform.stop("worker")
        platform.start("worker")
        body = {"prompt": "Hello", "model": "second"}
        job = client.post("/v1/jobs", json=body, headers={"Prefer": "wait=60"}).json()

    assert refused == read == {"api", "relay", "upkeep"}
    assert before == 422
    assert (job["status"], job["model"]) == ("completed", "second")


def _after_hangup(platform: Platform, event: str) -> set[str]:
    """Which processes said so after SIGHUP."""
    names = {"api", "relay", "upkeep"}
    for name in names:
        platform.processes[name].send_signal(signal.SIGHUP)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        said = {name for name in names if event in platform.log(name)}
        if said == names:
            break
        time.sleep(0.05)  # foreign processes that only a probe can see
    return said


def _is_whole(changes: list[dict[str, Any]]) -> bool:
    """Every change is there, and nothing was lost to a lease: a drained worker gives its jobs back itself."""
    reasons = {change["reason"] for change in changes}
    versions = [change["version"] for change in changes]
    return versions == list(range(1, len(changes) + 1)) and "lease_lost" not in reasons
