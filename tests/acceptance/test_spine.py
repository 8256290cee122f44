"""The main job on the real services: every job answered once, in the order of the classes."""

from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest

from tests.platform import Platform, running_platform, wait_for
from tests.services import Services

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

CLASSES = ("premium", "standard", "bulk")


@pytest.fixture(scope="module")
def platform(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with running_platform(services, tmp_path_factory.mktemp("platform")) as running:
        yield running


def question(number: int, **changes: Any) -> dict[str, Any]:
    content = f"where is my order A{1000 + number}"
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 24} | changes


def submit(client: Any, bodies: list[dict[str, Any]]) -> list[str]:
    ids = []
    for start in range(0, len(bodies), 1000):
        answer = client.post("/v1/jobs/bulk", json={"jobs": bodies[start : start + 1000]}).raise_for_status()
        ids += [one["job"]["id"] for one in answer.json()["data"]]
    return ids


def test_two_thousand_mixed_jobs_are_all_answered_once_and_in_the_order_of_classes(
    platform: Platform,
) -> None:
    with platform.client(platform.key("mixed")) as client:
        bodies = [question(n, service_class=CLASSES[n % 5 % 3]) for n in range(2000)]
        jobs = wait_for(client, submit(client, bodies))

    assert Counter(job["status"] for job in jobs) == {"completed": 2000}
    assert len({job["id"] for job in jobs}) == 2000
    assert {job["attempt"]["number"] for job in jobs} == {1}
    waits = {c: [j["timings"]["queue_ms"] for j in jobs if j["service_class"] == c] for c in CLASSES}
    assert median(waits["premium"]) < median(waits["standard"]) < median(waits["bulk"])
    ageing = {"premium": 60_000, "standard": 300_000, "bulk": 1_800_000}
    assert all(max(waits[c]) <= ageing[c] for c in CLASSES)
