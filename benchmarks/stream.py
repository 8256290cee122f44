"""Streams: tokens a second fanned out, and how much later than the engine the first token arrives.

The simulated engine takes 50 ms to the first token and 10 ms for each further one. What the platform adds is
all the rest from the sending of the prompt to the client's first token: acceptance, queue, dispatch, events.

Run: python -m benchmarks.stream [--seconds 15] [--json FILE]
"""

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import aiohttp

from benchmarks import load, measure
from benchmarks.arms import PenstockArm, penstock
from benchmarks.measure import CpuMeter, Figure, quantile
from tests.services import open_services

FIRST_MS, TOKEN_MS, TOKENS = 50.0, 10.0, 20
SLOTS = 64
P50_MS, P99_MS = 15.0, 60.0
ENGINE_SECONDS = (FIRST_MS + TOKEN_MS * (TOKENS - 1)) / 1000


@dataclass(slots=True)
class Seen:
    first: list[float] = field(default_factory=list)  # seconds from the sending of the prompt
    tokens: int = 0


async def follow(client: aiohttp.ClientSession, number: int, *, seen: Seen) -> None:
    began = time.perf_counter()
    job_id = await load.submit(max_tokens=TOKENS, service_class="premium")(client, number)
    first = True
    async with client.get(f"/v1/jobs/{job_id}/events") as events:
        async for line in events.content:
            if line.startswith(b"event: token") and first:
                seen.first.append(time.perf_counter() - began)
                first = False
            if line.startswith(b"data:") and b'"count"' in line:
                seen.tokens += int(line.partition(b'"count":')[2].split(b",")[0])


def run(arm: PenstockArm, *, rate: float, seconds: float) -> dict[str, float]:
    """Open loop: so many prompts a second, each followed from its first event to its last."""
    seen, cpu = Seen(), CpuMeter(arm.pids)

    async def go() -> load.Outcome:
        async with load.session(arm.url, arm.key, connections=0) as client:
            cpu.start()
            call = partial(follow, seen=seen)
            return await load.open_loop(client, call, rate=rate, requests=int(rate * seconds))

    outcome = asyncio.run(go())
    added = [1e3 * one - FIRST_MS for one in seen.first]
    return {
        "p50": quantile(added, 50),
        "p99": quantile(added, 99),
        "tokens": seen.tokens / outcome.seconds,
        "cpu_us": 1e6 * cpu.seconds() / max(1, seen.tokens),
    }


def maximum(arm: PenstockArm, *, jobs: int) -> float:
    """Streams a second that the platform carries when as many come as fit its slots."""
    seen = Seen()

    async def go() -> load.Outcome:
        async with load.session(arm.url, arm.key, connections=0) as client:
            return await load.closed_loop(client, partial(follow, seen=seen), clients=SLOTS, requests=jobs)

    return asyncio.run(go()).rate


def main() -> int:
    parser = measure.parser(__doc__, rounds=1)
    parser.add_argument("--seconds", type=float, default=15, help="of each open-loop run")
    given = parser.parse_args()
    with (
        open_services() as services,
        tempfile.TemporaryDirectory() as folder,
        penstock(services, Path(folder), slots=SLOTS, latency=(FIRST_MS, TOKEN_MS)) as arm,
    ):
        maximum(arm, jobs=2 * SLOTS)  # warm
        most = maximum(arm, jobs=12 * SLOTS)
        half = [run(arm, rate=most / 2, seconds=given.seconds) for _ in range(given.rounds)]
        full = [run(arm, rate=0.9 * most, seconds=given.seconds) for _ in range(given.rounds)]
    rows = [
        Figure("streams a second at most", (most,), "1/s"),
        Figure("the engine's own bound", (SLOTS / ENGINE_SECONDS,), "1/s"),
        Figure("tokens fanned out, 90 % load", tuple(one["tokens"] for one in full), "1/s"),
        Figure("CPU per token, 90 % load", tuple(one["cpu_us"] for one in full), "µs"),
        Figure("first token later by, p50, 50 % load", tuple(x["p50"] for x in half), "ms", at_most=P50_MS),
        Figure("first token later by, p99, 50 % load", tuple(x["p99"] for x in half), "ms", at_most=P99_MS),
    ]
    return measure.report("stream", rows, to=given.json)


if __name__ == "__main__":
    sys.exit(main())
