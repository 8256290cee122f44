"""`make demo`: starts the embedded platform, sends it the prompts beside this file, shows what came back.

Exits with 1 when anything is not as it should be.
"""

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

PROMPTS = Path(__file__).parent / "prompts.jsonl"
CLASSES = ("premium", "standard", "bulk")
TERMINAL = {"completed", "failed", "cancelled", "expired"}
START = 40.0  # seconds to be ready
STOP = 20.0  # seconds to stop
WIDE = 110

console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)


class DemoFailed(Exception):
    """Something was not as it should be."""


@dataclass(frozen=True, slots=True)
class Platform:
    address: str
    key: str


@contextmanager
def embedded_platform(folder: str) -> Iterator[Platform]:
    """`penstock up` as a child process, stopped as a person would stop it: with Ctrl-C."""
    command = [sys.executable, "-m", "cli.main", "up", "--port", "0", "--data-dir", folder]
    log = Path(folder, "up.log")
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=PROMPTS.parents[1]
        )
        try:
            yield _read_announcement(process, log)
        except BaseException:
            process.kill()
            raise
        process.send_signal(signal.SIGINT)
        code = process.wait(STOP)
    if code != 0:
        raise DemoFailed(f"`penstock up` ended with {code}:\n{log.read_text()[-2000:]}")


def _read_announcement(process: subprocess.Popen[str], log: Path) -> Platform:
    marks = {"Penstock is ready at ": "address", "Development key: ": "key"}
    found: dict[str, str] = {}
    for line in process.stdout or ():
        for mark, name in marks.items():
            if line.startswith(mark):
                found[name] = line.removeprefix(mark).strip()
        if len(found) == len(marks):
            return Platform(**found)
    raise DemoFailed(f"`penstock up` did not start:\n{log.read_text()[-2000:]}")


def wait_until_ready(http: httpx.Client) -> None:
    end = time.monotonic() + START
    while http.get("/ready").status_code != httpx.codes.OK:
        if time.monotonic() > end:
            raise DemoFailed(f"not ready after {START:.0f} s: {http.get('/ready').text}")
        time.sleep(0.05)  # the platform starts; nothing tells us when


def submit_prompts(http: httpx.Client) -> list[dict[str, Any]]:
    jobs = [json.loads(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    outcomes = http.post("/v1/jobs/bulk", json={"jobs": jobs}).raise_for_status().json()["data"]
    refused = [outcome["error"] for outcome in outcomes if outcome["job"] is None]
    if refused:
        raise DemoFailed(f"refused: {refused[0]}")
    return [outcome["job"] for outcome in outcomes]


def cancel_one(http: httpx.Client) -> str:
    """A long job of the last class, so that it is stopped before it ends."""
    body = {"prompt": "hi, can you help me", "service_class": "bulk", "max_tokens": 512, "priority": 0}
    job = http.post("/v1/jobs", json=body).raise_for_status().json()
    http.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
    return str(job["id"])


def show_refusal(http: httpx.Client) -> None:
    answer = http.post("/v1/jobs", json={"prompt": "hello", "max_tokens": -5})
    problem = answer.json()
    if not httpx.codes.is_client_error(answer.status_code):
        raise DemoFailed(f"a bad request was answered {answer.status_code}")
    console.print("A bad request, [bold]max_tokens: -5[/], is refused with its reason:")
    console.print(Text(f"  {answer.status_code} {problem['code']}: {problem['detail']}\n"))


def collect(http: httpx.Client, ids: list[str]) -> list[dict[str, Any]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("Answering", total=len(ids))
        jobs = []
        for job_id in ids:
            jobs.append(_wait_for(http, job_id))
            progress.advance(bar)
    return jobs


def _wait_for(http: httpx.Client, job_id: str) -> dict[str, Any]:
    while True:
        job: dict[str, Any] = http.get(f"/v1/jobs/{job_id}", params={"wait": 30}).raise_for_status().json()
        if job["status"] in TERMINAL:
            return job


def show_answers(jobs: list[dict[str, Any]], questions: list[str]) -> None:
    """In the order in which they started."""
    table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
    for header in ("class", "queue ms", "run ms", "cached/prompt"):
        table.add_column(
            header, justify="left" if header == "class" else "right", no_wrap=True, min_width=len(header)
        )
    table.add_column("question and answer", overflow="fold", ratio=1)
    answered = zip(jobs, questions, strict=True)
    for job, question in sorted(answered, key=lambda pair: pair[0]["timings"]["queue_ms"]):
        usage, timings = job["usage"], job["timings"]
        text = Text.assemble((f"{question} → ", "dim"), job["output"]["text"].strip())
        table.add_row(
            job["service_class"],
            f"{timings['queue_ms']:.0f}",
            f"{timings['run_ms']:.0f}",
            f"{_cached(usage)}/{usage['prompt_tokens']}",
            text,
        )
    console.print(table)


def show_totals(jobs: list[dict[str, Any]], seconds: float) -> None:
    tokens = sum(job["usage"]["completion_tokens"] for job in jobs)
    prompt = sum(job["usage"]["prompt_tokens"] for job in jobs)
    cached = sum(_cached(job["usage"]) for job in jobs)
    console.print(f"\n{len(jobs)} answers, {tokens} tokens written in {seconds:.1f} s")
    for name in CLASSES:
        mine = [job["timings"] for job in jobs if job["service_class"] == name]
        queue, run = (statistics.median(timing[field] for timing in mine) for field in ("queue_ms", "run_ms"))
        console.print(
            f"  {name:9} {len(mine):2} jobs   median queue wait {queue:6.0f} ms   run {run:6.0f} ms"
        )
    console.print(f"  {cached} of {prompt} prompt tokens came from the cache ({cached / prompt:.0%})")


def _cached(usage: dict[str, Any]) -> int:
    return int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)


def _question(line: str) -> str:
    body = json.loads(line)
    return str(body.get("prompt") or body["messages"][-1]["content"])


def check(jobs: list[dict[str, Any]], cancelled: dict[str, Any]) -> None:
    bad = [job for job in jobs if job["status"] != "completed" or not job["output"]["text"].strip()]
    if bad:
        raise DemoFailed(f"{bad[0]['id']} is {bad[0]['status']}: {bad[0]['error']}")
    if cancelled["status"] != "cancelled":
        raise DemoFailed(f"the cancelled job is {cancelled['status']}")
    if not any(_cached(job["usage"]) for job in jobs):
        raise DemoFailed("no prompt token came from the cache, although most prompts begin alike")


def run_demo(platform: Platform) -> None:
    headers = {"Authorization": f"Bearer {platform.key}"}
    with httpx.Client(base_url=platform.address, headers=headers, timeout=60) as http:
        wait_until_ready(http)
        console.print(f"Penstock answers at {platform.address}\n")
        show_refusal(http)
        started = time.monotonic()
        submitted = submit_prompts(http)
        cancelled_id = cancel_one(http)
        console.print(f"{len(submitted)} jobs submitted in one request, one more submitted and cancelled:")
        jobs = collect(http, [job["id"] for job in submitted])
        seconds = time.monotonic() - started
        cancelled = _wait_for(http, cancelled_id)
        check(jobs, cancelled)
        console.print(f"{cancelled_id} is {cancelled['status']}\n")
        show_answers(jobs, [_question(line) for line in PROMPTS.read_text(encoding="utf-8").splitlines()])
        show_totals(jobs, seconds)


def main() -> int:
    started = time.monotonic()
    # Without this a SIGTERM would end the demo at once and leave its platform behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with (
            tempfile.TemporaryDirectory(prefix="penstock-demo-") as folder,
            embedded_platform(folder) as platform,
        ):
            run_demo(platform)
    except (DemoFailed, httpx.HTTPError, subprocess.TimeoutExpired) as failure:
        console.print(Text(f"The demo failed: {failure}", style="red"))
        return 1
    console.print(f"\nStopped cleanly. {time.monotonic() - started:.0f} s in all.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
