"""`penstock up`: the whole platform in one command, with nothing beside it."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.embedded import ROOT, environment, up
from tests.local_servers import free_port

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_answers_real_prompts_and_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with up(tmp_path) as running, running.client() as client:
        assert client.get("/ready").status_code == 200
        body = {"prompt": "How long does a refund take", "temperature": 0}
        job = client.post("/v1/jobs", json=body, headers={"Prefer": "wait=30"}).json()

        assert job["status"] == "completed"
        assert "refund" in job["output"]["text"].lower()
        assert running.stop(number) == 0


def test_the_development_key_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    with up(tmp_path, PENSTOCK_BOOTSTRAP_KEY="a-key-of-my-own") as running, running.client() as client:
        assert running.key == "a-key-of-my-own"
        assert client.get("/v1/jobs").status_code == 200


def test_the_development_key_is_kept_for_the_next_start(tmp_path: Path) -> None:
    with up(tmp_path) as first:
        first.stop(signal.SIGTERM)
    with up(tmp_path) as second, second.client() as client:
        assert second.key == first.key
        assert client.get("/v1/jobs").status_code == 200


def test_what_was_accepted_before_a_kill_is_answered_after_the_next_start(tmp_path: Path) -> None:
    with up(tmp_path) as first, first.client() as client:
        jobs = [{"prompt": f"where is my order A{n}", "max_tokens": 24} for n in range(1000, 1200)]
        answer = client.post("/v1/jobs/bulk", json={"jobs": jobs}).raise_for_status().json()
        ids = [one["job"]["id"] for one in answer["data"]]
        assert first.stop(signal.SIGKILL) == -signal.SIGKILL

    with up(tmp_path) as second, second.client() as client:
        ends = {client.get(f"/v1/jobs/{job_id}", params={"wait": 60}).json()["status"] for job_id in ids}
        assert ends == {"completed"}


def test_a_taken_port_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "up", "--port", port, "--data-dir", str(tmp_path)],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 2
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


PROMPTS = [json.loads(line) for line in (ROOT / "examples" / "prompts.jsonl").read_text().splitlines()]
ROW = re.compile(r"^(premium|standard|bulk) +(\d+) +(\d+) +(\d+)/(\d+) +(\S.*?) → (\S.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def demo() -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "examples/demo.py"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_the_demo_ends_well(demo: "subprocess.CompletedProcess[str]") -> None:
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stdout.splitlines()[-1].startswith("Stopped cleanly. ")
    assert "Traceback" not in demo.stdout + demo.stderr


def test_the_demo_shows_every_answer_with_its_times_and_its_cached_tokens(
    demo: "subprocess.CompletedProcess[str]",
) -> None:
    rows = ROW.findall(demo.stdout)

    assert len(rows) == len(PROMPTS) >= 24
    asked = Counter(prompt.get("service_class", "standard") for prompt in PROMPTS)
    assert Counter(row[0] for row in rows) == asked
    assert min(asked.values()) > 1
    assert len({question for *_, question, _ in rows}) == len(rows)
    assert all(int(run) > 0 and 0 <= int(cached) < int(total) for _, _, run, cached, total, _, _ in rows)
    assert any(int(cached) > int(total) / 2 for _, _, _, cached, total, _, _ in rows)


def test_the_demo_adds_up_what_was_answered(demo: "subprocess.CompletedProcess[str]") -> None:
    rows = ROW.findall(demo.stdout)
    cached, total = (sum(int(row[column]) for row in rows) for column in (3, 4))

    assert re.search(rf"^{len(rows)} answers, \d+ tokens written in [\d.]+ s$", demo.stdout, re.MULTILINE)
    for name in ("premium", "standard", "bulk"):
        line = rf"^  {name} +(\d+) jobs   median queue wait +\d+ ms   run +\d+ ms$"
        assert re.findall(line, demo.stdout, re.MULTILINE) == [str(sum(row[0] == name for row in rows))]
    assert f"  {cached} of {total} prompt tokens came from the cache" in demo.stdout


def test_the_demo_shows_a_refusal_with_its_reason_and_a_cancelled_job(
    demo: "subprocess.CompletedProcess[str]",
) -> None:
    assert "max_tokens: -5, is refused" in demo.stdout
    assert "422 invalid_field: max_tokens: Input should be greater than or equal to 1" in demo.stdout
    assert re.search(r"^job_\w+ is cancelled$", demo.stdout, re.MULTILINE)


def test_one_port_shows_the_metrics_of_all_of_it(tmp_path: Path) -> None:
    port = free_port()
    with up(tmp_path, PENSTOCK_METRICS__PORT=str(port)) as running, running.client() as client:
        body = {"prompt": "How long does a refund take"}
        client.post("/v1/jobs", json=body, headers={"Prefer": "wait=30"}).raise_for_status()
        shown = httpx.get(f"http://127.0.0.1:{port}/metrics").text

    for name in ("jobs_accepted_total", "jobs_released_total", "jobs_finished_total", "upkeep_leads"):
        assert f"\npenstock_{name}" in shown, name
    assert 'process="up"' in shown
