"""What a durable 202 costs: the API's CPU and rate beside a bare FastAPI POST, and beside insert + send_task.

Run: python -m benchmarks.submit [--rounds 5] [--requests 3000] [--json FILE]
Each arm is one process of its own; the client is another. Exits non-zero where a bound does not hold.
"""

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import asyncpg

from benchmarks import load, measure
from benchmarks.arms import Arm, dsn, front, penstock_api, rival_environment
from benchmarks.measure import CpuMeter, Figure, quantile, ratio
from benchmarks.posts import posts, submit
from core.loop import run as run_on_uvloop
from tests.services import Services, open_services

CLIENTS = (1, 64, 256)
PENSTOCK, BARE, HOME_MADE = "penstock", "bare POST", "insert + send_task"
# CPU per request, ours by theirs, with the most clients.
BOUNDS = {BARE: 2.2, HOME_MADE: 1 / 3}


def one_round(arm: Arm, clients: int, requests: int) -> dict[str, float]:
    cpu = CpuMeter(arm.pids)

    async def run() -> load.Outcome:
        async with posts(arm.url, arm.key) as client:
            cpu.start()
            return await load.closed_loop(client, submit(max_tokens=64), clients=clients, requests=requests)

    outcome = run_on_uvloop(run())
    return {
        "cpu_us": 1e6 * cpu.seconds() / requests,
        "rate": outcome.rate,
        "p99_ms": 1e3 * quantile(outcome.latencies, 99),
    }


@contextmanager
def arms(services: Services, folder: Path) -> Iterator[dict[str, Arm]]:
    environment = rival_environment(services)
    with (
        penstock_api(services, folder) as ours,
        front("bare", environment) as bare,
        front("insert_and_send", environment) as home_made,
    ):
        asyncio.run(_make_table(services))
        yield {PENSTOCK: ours, BARE: bare, HOME_MADE: home_made}


async def _make_table(services: Services) -> None:
    connection = await asyncpg.connect(dsn(services))
    await connection.execute("CREATE TABLE rival_jobs (id text PRIMARY KEY, body text NOT NULL)")
    await connection.close()


def figures(found: dict[str, dict[str, list[float]]], clients: int) -> list[Figure]:
    ours, at = found[PENSTOCK], f"{clients} clients"
    rows = [
        Figure(f"{name}, {at}: CPU per request", tuple(values["cpu_us"]), "µs")
        for name, values in found.items()
    ]
    rows += [
        Figure(f"{name}, {at}: requests per second", tuple(values["rate"]), "1/s")
        for name, values in found.items()
    ]
    for rival, limit in BOUNDS.items():
        bound = {"at_most": limit} if clients == max(CLIENTS) else {}
        rows.append(ratio(f"CPU ÷ {rival}, {at}", ours["cpu_us"], found[rival]["cpu_us"], **bound))
        rows.append(ratio(f"rate ÷ {rival}, {at}", ours["rate"], found[rival]["rate"]))
    return rows


def main() -> int:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--requests", type=int, default=3000, help="per round and arm, with many clients")
    given = parser.parse_args()
    rows: list[Figure] = []
    with (
        open_services() as services,
        tempfile.TemporaryDirectory() as folder,
        arms(services, Path(folder)) as found,
    ):
        for clients in CLIENTS:
            requests = given.requests if clients > 1 else given.requests // 6
            runs = {name: partial(one_round, arm, clients, requests) for name, arm in found.items()}
            for run in runs.values():
                run()  # warm
            rows += figures(measure.interleaved(given.rounds, runs), clients)
    return measure.report("submit", rows, to=given.json)


if __name__ == "__main__":
    sys.exit(main())
