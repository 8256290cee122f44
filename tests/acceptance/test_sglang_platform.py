"""The whole platform on real SGLang: what a caller gets of it, and what becomes of jobs when it dies."""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from models.catalogue import SGLangModel
from tests.acceptance.test_spine import question, recorded_results, submit
from tests.platform import Platform, running_platform, wait_for
from tests.platform_fixtures import parsed_events
from tests.services import Services

PYTHON = Path(SGLangModel.model_fields["python"].default)
pytestmark = [
    pytest.mark.sglang,
    pytest.mark.services,
    pytest.mark.timeout(500),
    pytest.mark.skipif(not PYTHON.is_file(), reason="no environment with SGLang: make sglang-env"),
]
ENTRY = """
[[model]]
name = "default"
engine = "sglang"
path = "bundled:support-tiny"
device = "cpu"
slots = 8
context_length = 2048
kv_tokens = 16384
memory_fraction = 0.3
"""
RULES = "You answer questions about invoices, parcels and passwords, and never about the weather. " * 8


@pytest.fixture(scope="module")
def platform(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("sglang")
    catalogue = folder / "models.toml"
    catalogue.write_text(ENTRY)
    with running_platform(
        services, folder, CATALOGUE=str(catalogue), OVERLOAD__ENABLED="false", ANSWERS__ENABLED="false"
    ) as running:
        yield running


def ruled(number: int, **changes: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": RULES}, {"role": "user", "content": f"Question {number}?"}]
    return {"messages": messages, "max_tokens": 8, "temperature": 0} | changes


def cached(jobs: list[dict[str, Any]]) -> list[int]:
    return [job["usage"]["prompt_tokens_details"]["cached_tokens"] for job in jobs]


def streamed(events: list[dict[str, str]]) -> str:
    """The answer as a reader of the stream has it: a new attempt begins it anew."""
    text = ""
    for event in events:
        match event["event"]:
            case "reset":
                text = ""
            case "token":
                text += json.loads(event["data"])["text"]
    return text


def server_of(platform: Platform) -> psutil.Process:
    children = psutil.Process(platform.processes["worker"].pid).children(recursive=True)
    return next(child for child in children if "workers.engines.sglang_server" in child.cmdline())


def test_a_job_streams_its_tokens_and_a_schema_shapes_its_answer(platform: Platform) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "c", "schema": {"enum": ["red", "blue"]}}}
    with platform.client(platform.key("streams")) as client:
        job_id = submit(client, [question(1)])[0]
        events = list(parsed_events(client.get(f"/v1/jobs/{job_id}/events").text))
        [told, shaped] = wait_for(client, [job_id, *submit(client, [question(2, response_format=shape)])])

    assert streamed(events) == told["output"]["text"] != ""
    assert json.loads(shaped["output"]["text"]) in {"red", "blue"}


def test_a_shared_beginning_is_read_once_and_never_by_a_tenant_apart(platform: Platform) -> None:
    with platform.client(platform.key("shares")) as client:
        wait_for(client, submit(client, [ruled(0)]))
        kin = wait_for(client, submit(client, [ruled(n) for n in range(1, 9)]))
    with platform.client(platform.key("apart")) as client:
        platform.run("tenants", "isolate", "apart")
        first = wait_for(client, submit(client, [ruled(10)]))
        second = wait_for(client, submit(client, [ruled(11)]))

    least = kin[0]["usage"]["prompt_tokens"] // 2
    assert min(cached(kin)) > least
    assert cached(first) == [0]
    assert min(cached(second)) > least


def test_cancelled_jobs_leave_the_engine_to_others(platform: Platform) -> None:
    long = {"prompt": "hello hello hello", "max_tokens": 1500, "temperature": 0, "repetition_penalty": 0.1}
    with platform.client(platform.key("cancels")) as client:
        ids = submit(client, [long for _ in range(8)])
        for job_id in ids:  # each has begun
            with client.stream("GET", f"/v1/jobs/{job_id}/events") as events:
                next(line for line in events.iter_lines() if line == "event: token")
        answer = client.post("/v1/jobs/bulk/cancel", json={"ids": ids})
        [other] = wait_for(client, submit(client, [question(3)]))
        ended = [client.get(f"/v1/jobs/{job_id}", params={"wait": 20}).json() for job_id in ids]

    assert answer.status_code == 200
    assert other["status"] == "completed"
    assert {job["status"] for job in ended} == {"cancelled"}


def test_jobs_of_a_server_that_is_killed_are_all_answered_once_when_it_is_back(
    platform: Platform, services: Services
) -> None:
    with platform.client(platform.key("killed")) as client:
        ids = submit(client, [question(n, max_tokens=64) for n in range(200)])
        wait_for(client, ids[:1])
        server = server_of(platform)
        os.kill(server.pid, signal.SIGKILL)
        jobs = wait_for(client, ids)

    assert Counter(job["status"] for job in jobs) == {"completed": 200}
    assert recorded_results(services, ids) == 200
    assert {job["attempt"]["number"] for job in jobs} > {1}
    assert server_of(platform).pid != server.pid
    assert "engine_died" in (platform.folder / "worker.log").read_text()
