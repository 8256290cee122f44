"""How fast the right job starts behind a backlog, on real processes, services and engine.

Run: python -m benchmarks.order_live [--backlog 2000] [--rounds 3]
Exits non-zero where a promise is not kept.
"""

import argparse
import json
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from tests.platform import Platform, running_platform, wait_for
from tests.services import open_services

PREMIUM_START_MS = 300.0
TENANT_RATIO = 1.5


def question(number: int, service_class: str) -> dict[str, Any]:
    content = f"where is my order A{1000 + number}"
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": 24}
    return body | {"service_class": service_class}


def submit(client: httpx.Client, count: int, service_class: str) -> list[str]:
    ids = []
    for start in range(0, count, 1000):
        jobs = [question(n, service_class) for n in range(start, min(start + 1000, count))]
        answer = client.post("/v1/jobs/bulk", json={"jobs": jobs}).raise_for_status().json()
        ids += [one["job"]["id"] for one in answer["data"]]
    return ids


def last_start(jobs: list[dict[str, Any]]) -> float:
    """Milliseconds from the first submission to the last start."""
    created = min(datetime.fromisoformat(job["created_at"]) for job in jobs)
    started = max(datetime.fromisoformat(job["started_at"]) for job in jobs)
    return (started - created).total_seconds() * 1000


def last_finish(jobs: list[dict[str, Any]]) -> float:
    created = min(datetime.fromisoformat(job["created_at"]) for job in jobs)
    finished = max(datetime.fromisoformat(job["finished_at"]) for job in jobs)
    return (finished - created).total_seconds() * 1000


def premium_behind_bulk(client: httpx.Client, backlog: int, rounds: int) -> list[float]:
    """Queue milliseconds of single premium jobs while bulk jobs wait."""
    waiting = submit(client, backlog, "bulk")
    waits = []
    for _ in range(rounds):
        job = wait_for(client, submit(client, 1, "premium"))[0]
        waits.append(job["timings"]["queue_ms"])
    left = client.get("/v1/jobs", params={"status": "queued", "limit": 1}).json()["data"]
    if not left:
        raise RuntimeError("the backlog was gone before the last premium job: enlarge --backlog")
    wait_for(client, waiting)
    return waits


def tenant_behind_tenant(
    greedy: httpx.Client, modest: httpx.Client, backlog: int, rounds: int
) -> dict[str, list[float]]:
    """Ten jobs of one tenant: alone, and behind another tenant's backlog of the same class."""
    seen: dict[str, list[float]] = {
        "alone start": [],
        "behind start": [],
        "alone done": [],
        "behind done": [],
    }
    for _ in range(rounds):
        alone = wait_for(modest, submit(modest, 10, "standard"))
        waiting = submit(greedy, backlog, "standard")
        behind = wait_for(modest, submit(modest, 10, "standard"))
        wait_for(greedy, waiting)
        for name, jobs in (("alone", alone), ("behind", behind)):
            seen[f"{name} start"].append(last_start(jobs))
            seen[f"{name} done"].append(last_finish(jobs))
    return seen


def measure(platform: Platform, backlog: int, rounds: int) -> dict[str, Any]:
    with platform.client(platform.key("greedy")) as greedy, platform.client(platform.key("modest")) as modest:
        wait_for(modest, submit(modest, 10, "standard"))  # warm
        waits = premium_behind_bulk(greedy, backlog, 5 * rounds)
        tenants = tenant_behind_tenant(greedy, modest, backlog, rounds)
    medians = {name: median(values) for name, values in tenants.items()}
    return {
        "premium_start_ms": {"median": median(waits), "max": max(waits), "limit": PREMIUM_START_MS},
        "tenant_ms": medians,
        "tenant_start_ratio": medians["behind start"] / medians["alone start"],
        "tenant_done_ratio": medians["behind done"] / medians["alone done"],
    }


def show(figures: dict[str, Any]) -> None:
    table = Table("figure", "value", "limit")
    premium = figures["premium_start_ms"]
    table.add_row("premium start behind bulk, median", f"{premium['median']:.0f} ms", "")
    table.add_row(
        "premium start behind bulk, worst", f"{premium['max']:.0f} ms", f"{PREMIUM_START_MS:.0f} ms"
    )
    for name, value in figures["tenant_ms"].items():
        table.add_row(f"ten jobs, {name}", f"{value:.0f} ms", "")
    table.add_row(
        "ten jobs started, behind / alone", f"{figures['tenant_start_ratio']:.2f}", f"{TENANT_RATIO}"
    )
    table.add_row("ten jobs done, behind / alone", f"{figures['tenant_done_ratio']:.2f}", "")
    Console().print(table)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backlog", type=int, default=2000, help="jobs that wait in front")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions; medians are compared")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    with (
        open_services() as services,
        tempfile.TemporaryDirectory() as folder,
        running_platform(services, Path(folder), OVERLOAD__ENABLED="false") as platform,
    ):
        figures = measure(platform, arguments.backlog, arguments.rounds)
    show(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    kept = (
        figures["premium_start_ms"]["max"] <= PREMIUM_START_MS
        and figures["tenant_start_ratio"] <= TENANT_RATIO
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
