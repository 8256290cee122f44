"""What a backlog costs who comes, is released and is claimed: with nothing, 10,000 and 1,000,000 queued.

Run: python -m benchmarks.backlog [--sizes 0,10000,1000000] [--rounds 20] [--json FILE]
The long set: a million rows take minutes to write.
"""

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from statistics import median

import asyncpg

from benchmarks import load, measure
from benchmarks.arms import PenstockArm, dsn, penstock_api
from benchmarks.measure import Figure, quantile, resident_mb
from core.settings import BrokerSettings, DatabaseSettings, RedisSettings, Settings
from models.dialect import open_database
from models.repositories import execution
from queues.publisher import open_publisher
from queues.redis import open_redis
from queues.relay import Relay
from tests.services import Services, open_services

CLIENTS, REQUESTS = 16, 1500
TO_MEASURE = 3000  # jobs to release and to claim where none would wait otherwise: the same groups everywhere
SUBMIT_LIMIT, RELEASE_LIMIT = 1.2, 1.3

# Twenty tenants, three classes, half of the jobs with one of fifty prefixes.
_FILL = """
WITH numbers AS (SELECT n, 'job_backlog' || lpad(n::text, 9, '0') AS id, 'tenant-' || n % 20 AS tenant,
  (ARRAY['premium','standard','bulk'])[1 + n % 3] AS class,
  CASE WHEN n % 2 = 0 THEN 'prefix-' || n % 50 END AS prefix,
  now() - interval '1 minute' + n * interval '10 microseconds' AS at
  FROM generate_series($1::int, $2::int) n),
new_jobs AS (INSERT INTO jobs (id, tenant_id, model, service_class, priority, status, version, generation,
  attempt, excused, cost, prefix, prefix_tokens, created_at, fingerprint)
  SELECT id, tenant, 'default', class, 5, 'queued', 1, 0, 0, 0, 300, prefix, 100, at, md5(id) FROM numbers),
new_payloads AS (INSERT INTO payloads (job_id, request, metadata, tags)
  SELECT id, '{"prompt": "where is my order", "max_tokens": 64}', '{}', '[]' FROM numbers)
INSERT INTO outbox (job_id, generation, state, lane, model, service_class, tenant_id, rank, cost, prefix,
  prefix_tokens, created_at)
  SELECT id, 0, 'waiting', concat_ws(E'\\x1f', 'default', class, tenant), 'default', class, tenant, 4, 300,
  prefix, 100, at FROM numbers
"""


@dataclass(slots=True)
class Sizes:
    """Milliseconds and megabytes at one size of the backlog."""

    submit_p99: float = 0.0
    api_mb: float = 0.0
    release: list[float] = field(default_factory=list)
    claim: list[float] = field(default_factory=list)


async def fill(database: str, first: int, last: int) -> None:
    connection = await asyncpg.connect(database, command_timeout=600)
    try:
        for start in range(first, last, 50_000):
            await connection.execute(_FILL, start + 1, min(start + 50_000, last))
        await connection.execute("ANALYZE jobs, payloads, outbox")
    finally:
        await connection.close()


async def submit(arm: PenstockArm, sizes: Sizes) -> None:
    async with load.session(arm.url, arm.key, connections=CLIENTS) as client:
        await load.closed_loop(client, load.submit(max_tokens=8), clients=CLIENTS, requests=200)
        outcome = await load.closed_loop(
            client, load.submit(max_tokens=8), clients=CLIENTS, requests=REQUESTS
        )
    sizes.submit_p99 = 1e3 * quantile(outcome.latencies, 99)
    sizes.api_mb = resident_mb(arm.pids[0])


async def release_and_claim(services: Services, sizes: Sizes, *, rounds: int) -> None:
    """One relay and one worker's claims, in turn, as the relay's and the worker's own code does them."""
    settings = Settings(
        database=DatabaseSettings(url=services.database_url),
        redis=RedisSettings(url=services.redis_url),
        broker=BrokerSettings(url=services.broker_url, namespace=services.namespace),
    )
    database = open_database(settings.database, namespace=services.namespace)
    redis = open_redis(settings.redis, namespace=services.namespace)
    publisher = open_publisher(settings.broker, ["default"])
    relay = Relay(database, publisher, redis, settings)
    raw = await asyncpg.connect(dsn(services))
    try:
        for number in range(rounds):
            began = time.perf_counter()
            released = await relay.release()
            spent = time.perf_counter() - began
            rows = await raw.fetch("SELECT job_id, generation FROM outbox WHERE state = 'released'")
            began = time.perf_counter()
            async with database.begin() as connection:
                wanted = [(row["job_id"], row["generation"]) for row in rows]
                lease = timedelta(minutes=10)
                await execution.claim(connection, wanted, worker="benchmark", lease=lease)
            if number:  # the first one connects
                sizes.release.append(1e3 * spent / max(1, released))
                sizes.claim.append(1e3 * (time.perf_counter() - began) / max(1, len(rows)))
    finally:
        await raw.close()
        await publisher.close()
        await redis.aclose()
        await database.close()


def figures(found: dict[int, Sizes]) -> list[Figure]:
    rows: list[Figure] = []
    for size, one in found.items():
        rows += [
            Figure(f"{size:,} queued: submit p99", (one.submit_p99,), "ms"),
            Figure(f"{size:,} queued: release of a job", tuple(one.release), "ms"),
            Figure(f"{size:,} queued: claim of a job", tuple(one.claim), "ms"),
            Figure(f"{size:,} queued: memory of the API", (one.api_mb,), "MB"),
        ]
    first, *others = found.items()
    for size, one in others:
        small, name = first[1], f"{size:,} queued ÷ {first[0]:,}"
        rows += [
            Figure(f"{name}: submit p99", (one.submit_p99 / small.submit_p99,), "x", at_most=SUBMIT_LIMIT),
            Figure(f"{name}: release", (_times(one.release, small.release),), "x", at_most=RELEASE_LIMIT),
            Figure(f"{name}: claim", (_times(one.claim, small.claim),), "x", at_most=RELEASE_LIMIT),
        ]
    return rows


def _times(ours: list[float], theirs: list[float]) -> float:
    return median(ours) / median(theirs)


def main() -> int:
    parser = measure.parser(__doc__, rounds=20)
    parser.add_argument("--sizes", default="0,10000,1000000", help="jobs that wait, growing")
    given = parser.parse_args()
    found: dict[int, Sizes] = {}
    filled = 0
    with (
        open_services() as services,
        tempfile.TemporaryDirectory() as folder,
        penstock_api(services, Path(folder)) as arm,
    ):
        for size in map(int, given.sizes.split(",")):
            wanted = max(size, filled + TO_MEASURE)
            asyncio.run(fill(arm.database, filled, wanted))
            filled = wanted
            found[size] = Sizes()
            asyncio.run(submit(arm, found[size]))
            asyncio.run(release_and_claim(services, found[size], rounds=given.rounds))
    return measure.report("backlog", figures(found), to=given.json)


if __name__ == "__main__":
    sys.exit(main())
