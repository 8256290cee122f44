"""SIGTERM: every process ends cleanly, and what a worker had begun is done by the next one."""

from pathlib import Path
from typing import Any

import pytest

from tests.platform import running_platform, wait_for
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


def _is_whole(changes: list[dict[str, Any]]) -> bool:
    """Every change is there, and nothing was lost to a lease: a drained worker gives its jobs back itself."""
    reasons = {change["reason"] for change in changes}
    versions = [change["version"] for change in changes]
    return versions == list(range(1, len(changes) + 1)) and "lease_lost" not in reasons
