"""The whole way, HTTP to stored result, with an engine that costs nothing: jobs a second and CPU per job.

Beside plain Celery (prefork, `.delay()`, its Redis backend) and beside an aio-pika consumer that promises
nothing, each behind a FastAPI front; then Penstock's latency at 25, 50 and 80 % of its own maximum.

Run: python -m benchmarks.pipeline [--rounds 3] [--jobs 4000] [--json FILE]
CPU is that of each service's own processes: not PostgreSQL, Redis and RabbitMQ, and not the client.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import asyncpg

from benchmarks import load, measure
from benchmarks.arms import Arm, PenstockArm, bare_aio_pika, celery_prefork, penstock, wait_stored
from benchmarks.measure import CpuMeter, Figure, quantile, ratio
from benchmarks.posts import posts, submit
from core.loop import run as run_on_uvloop
from tests.services import Services, open_services

PENSTOCK, PREFORK, AIO_PIKA = "penstock", "Celery prefork", "bare aio-pika"
CLIENTS = 128
TOKENS = 1  # an answer of one token: the engine takes part and costs nothing
SHARES = (0.25, 0.5, 0.8)
OVERHEAD_P99_MS = 150.0

# Milliseconds from submission to the stored result, less what the engine took.
_OVERHEAD = """
SELECT extract(epoch FROM j.finished_at - j.created_at) * 1000 - (r.timings->>'run_ms')::float AS ms
FROM jobs j JOIN results r ON r.job_id = j.id WHERE j.id = ANY($1)
"""


def one_round(arm: Arm, jobs: int) -> dict[str, float]:
    before = arm.stored()
    cpu = CpuMeter(arm.pids)

    async def run() -> None:
        async with posts(arm.url, arm.key) as client:
            await load.closed_loop(client, submit(max_tokens=TOKENS), clients=CLIENTS, requests=jobs)

    cpu.start()
    began = time.perf_counter()
    run_on_uvloop(run())
    wait_stored(arm, before + jobs)
    seconds = time.perf_counter() - began
    return {"rate": jobs / seconds, "cpu_us": 1e6 * cpu.seconds() / jobs}


@contextmanager
def arms(services: Services, folder: Path) -> Iterator[dict[str, Arm]]:
    with (
        penstock(services, folder) as ours,
        celery_prefork(services) as prefork,
        bare_aio_pika(services) as aio_pika,
    ):
        yield {PENSTOCK: ours, PREFORK: prefork, AIO_PIKA: aio_pika}


def throughput(found: dict[str, dict[str, list[float]]]) -> list[Figure]:
    ours = found[PENSTOCK]
    rows = [Figure(f"{name}: jobs per second", tuple(one["rate"]), "1/s") for name, one in found.items()]
    rows += [Figure(f"{name}: CPU per job", tuple(one["cpu_us"]), "µs") for name, one in found.items()]
    rows.append(ratio(f"rate ÷ {PREFORK}", ours["rate"], found[PREFORK]["rate"], at_least=2.0))
    rows.append(ratio(f"CPU ÷ {PREFORK}", ours["cpu_us"], found[PREFORK]["cpu_us"], at_most=0.5))
    rows.append(ratio(f"rate ÷ {AIO_PIKA}", ours["rate"], found[AIO_PIKA]["rate"], at_least=0.25))
    rows.append(ratio(f"CPU ÷ {AIO_PIKA}", ours["cpu_us"], found[AIO_PIKA]["cpu_us"]))
    return rows


def latency(arm: PenstockArm, *, most: float, share: float, seconds: float) -> list[Figure]:
    """Open loop: jobs come at their times, whatever becomes of those before them."""
    rate = most * share

    async def run() -> list[str]:
        async with posts(arm.url, arm.key) as client:
            call = submit(max_tokens=TOKENS)
            outcome = await load.open_loop(client, call, rate=rate, requests=int(rate * seconds))
            return outcome.answers

    before = arm.stored()
    ids = run_on_uvloop(run())
    wait_stored(arm, before + len(ids))
    overhead = asyncio.run(_overhead(arm.database, ids))
    at = f"at {share:.0%} of the maximum"
    bound = {"at_most": OVERHEAD_P99_MS} if share == 0.5 else {}
    return [
        Figure(f"over the engine's time, p50 {at}", (quantile(overhead, 50),), "ms"),
        Figure(f"over the engine's time, p99 {at}", (quantile(overhead, 99),), "ms", **bound),
    ]


async def _overhead(database: str, ids: list[str]) -> list[float]:
    connection = await asyncpg.connect(database)
    try:
        return [float(row["ms"]) for row in await connection.fetch(_OVERHEAD, ids)]
    finally:
        await connection.close()


def main() -> int:
    parser = measure.parser(__doc__, rounds=3)
    parser.add_argument("--jobs", type=int, default=4000, help="jobs per round and arm")
    parser.add_argument("--seconds", type=float, default=10, help="of each open-loop run")
    given = parser.parse_args()
    with (
        open_services() as services,
        tempfile.TemporaryDirectory() as folder,
        arms(services, Path(folder)) as found,
    ):
        runs = {name: partial(one_round, arm, given.jobs) for name, arm in found.items()}
        for arm in found.values():
            one_round(arm, 500)  # warm
        rows = throughput(measure.interleaved(given.rounds, runs))
        most, ours = rows[0].median, found[PENSTOCK]
        assert isinstance(ours, PenstockArm)  # noqa: S101 - the types' proof
        for share in SHARES:
            rows += latency(ours, most=most, share=share, seconds=given.seconds)
    return measure.report("pipeline", rows, to=given.json)


if __name__ == "__main__":
    sys.exit(main())
