"""The main job on the real services: every job answered once, in the order of the classes."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Any

import asyncpg
import pytest

from tests.platform import Platform, running_platform, wait_for
from tests.services import Services

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

SLOTS = 8
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


def recorded_results(services: Services, job_ids: list[str]) -> int:
    """Results in the database, one row for each ending of these jobs that was ever recorded."""

    async def count() -> int:
        connection = await asyncpg.connect(services.database_url.replace("+asyncpg", ""))
        try:
            statement = "SELECT count(*) FROM results WHERE output IS NOT NULL AND job_id = ANY($1)"
            found: int = await connection.fetchval(statement, job_ids)
            return found
        finally:
            await connection.close()

    return asyncio.run(count())


def overtaken(started: list[dict[str, Any]], mine: list[dict[str, Any]]) -> int:
    """How many of `started` began after mine were submitted and before the last of mine began."""
    submitted = min(job["created_at"] for job in mine)
    last = max(job["started_at"] for job in mine)
    return sum(submitted < job["started_at"] < last for job in started)


def test_two_thousand_mixed_jobs_are_all_answered_once_and_in_the_order_of_classes(
    platform: Platform, services: Services
) -> None:
    with platform.client(platform.key("mixed")) as client:
        bodies = [question(n, service_class=CLASSES[n % 5 % 3]) for n in range(2000)]
        jobs = wait_for(client, submit(client, bodies))

    assert Counter(job["status"] for job in jobs) == {"completed": 2000}
    assert recorded_results(services, [job["id"] for job in jobs]) == 2000
    assert {job["attempt"]["number"] for job in jobs} == {1}
    waits = {c: [j["timings"]["queue_ms"] for j in jobs if j["service_class"] == c] for c in CLASSES}
    assert median(waits["premium"]) < median(waits["standard"]) < median(waits["bulk"])
    ageing = {"premium": 60_000, "standard": 300_000, "bulk": 1_800_000}
    assert all(max(waits[c]) <= ageing[c] for c in CLASSES)


def test_a_premium_job_behind_two_thousand_bulk_jobs_waits_for_a_few_of_them_only(
    platform: Platform,
) -> None:
    with platform.client(platform.key("behind-bulk")) as client:
        backlog = submit(client, [question(n, service_class="bulk") for n in range(2000)])
        premium = wait_for(client, submit(client, [question(0, service_class="premium")]))
        waiting = client.get("/v1/jobs", params={"status": "queued", "limit": 1}).json()["data"]
        bulk = wait_for(client, backlog)

    assert waiting, "the backlog was gone too early to say anything"
    # Those in the engine's slots finish first, and as many again may start while the job travels.
    assert overtaken(bulk, premium) <= 4 * SLOTS


def test_ten_jobs_of_one_tenant_do_not_wait_for_two_thousand_of_another(platform: Platform) -> None:
    with (
        platform.client(platform.key("greedy")) as greedy,
        platform.client(platform.key("modest")) as modest,
    ):
        backlog = submit(greedy, [question(n) for n in range(2000)])
        ten = wait_for(modest, submit(modest, [question(n) for n in range(10)]))
        waiting = greedy.get("/v1/jobs", params={"status": "queued", "limit": 1}).json()["data"]
        others = wait_for(greedy, backlog)

    assert waiting, "the backlog was gone too early to say anything"
    assert overtaken(others, ten) <= 4 * SLOTS
