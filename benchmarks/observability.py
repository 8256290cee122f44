"""What it costs to be seen: CPU per job with metrics, scrapes, Celery events and a console, and without.

Two platforms stand side by side and take turns. One is as shipped, with a port for each process that is
read as Prometheus does, and a console that is open all the time; in the other, `benchmarks/unmeasured` has
taken the counting and the events out, and nobody watches.

A round is four runs, with, without, without, with: what drifts during it weighs on both. Its ratio is the
CPU of the two runs with, by that of the two without; CPU is user and system time of API, relay, upkeep and
worker, children and threads included, and nobody else's. The bound is on the median of the rounds' ratios;
beside it stands how sure it is. Each side is asked afterwards whether it was what it should be: how many
Celery events, overviews and counted jobs there were.

Run: python -m benchmarks.observability [--rounds 10] [--jobs 1500] [--rate R] [--json FILE]
With a rate both get so many jobs a second and not as many as they can do: what is paid by the second, and
not by the job, weighs more then.
"""

import asyncio
import random
import statistics
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
from kombu import Connection, Exchange, Queue

from benchmarks import load, measure
from benchmarks.arms import PenstockArm, penstock, wait_stored
from benchmarks.measure import CpuMeter, Figure
from benchmarks.pipeline import CLIENTS, TOKENS
from tests.local_servers import free_port
from tests.services import Services, open_services

ON, OFF = "with metrics, events and a console", "without"
MOST: Final = 1.05
ROOT: Final = Path(__file__).resolve().parents[1]
_METERED: Final = ("api", "relay", "upkeep", "worker")
_EVENTS: Final = Exchange("celeryev", type="topic")
_RESAMPLES: Final = 4000
_COUNTED: Final = "penstock_jobs_accepted_total"


@dataclass
class Witness:
    """What was to be seen of one side, beside its CPU."""

    events: int = 0
    overviews: int = 0
    counted: float = 0.0
    jobs: int = 0

    def said(self) -> str:
        return f"{self.events / self.jobs:.1f} Celery events a job, {self.overviews} overviews"


@dataclass
class Side:
    """One of the two platforms; `spent` is CPU seconds of its last run."""

    arm: PenstockArm
    services: Services
    watch: Callable[[], Any]
    witness: Witness = field(default_factory=Witness)

    def run(self, jobs: int, rate: float | None) -> float:
        """CPU seconds of so many jobs, from the first request to the last stored result."""
        before, cpu = self.arm.stored(), CpuMeter(self.arm.pids)
        with hearing(self.services, self.witness), self.watch():
            cpu.start()
            _submit(self.arm, jobs, rate)
            wait_stored(self.arm, before + jobs)
            spent = cpu.seconds()
        self.witness.jobs += jobs
        return spent


def _submit(arm: PenstockArm, jobs: int, rate: float | None) -> None:
    async def run() -> None:
        call = load.submit(max_tokens=TOKENS)
        async with load.session(arm.url, arm.key, connections=CLIENTS) as client:
            if rate is None:
                await load.closed_loop(client, call, clients=CLIENTS, requests=jobs)
            else:
                await load.open_loop(client, call, rate=rate, requests=jobs)

    asyncio.run(run())


@contextmanager
def in_thread(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """`work` until its event is set."""
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def hearing(services: Services, witness: Witness) -> Iterator[None]:
    """Counts what Flower would be sent, on both sides: where nothing is sent, it costs nothing."""
    ready = threading.Event()

    def count(body: Any, _: Any) -> None:
        events = body if isinstance(body, list) else [body]
        witness.events += sum(one["type"].startswith("task-") for one in events)

    def read(stop: threading.Event) -> None:
        with Connection(services.broker_url) as connection:
            queue = Queue("", _EVENTS, routing_key="#", exclusive=True, auto_delete=True)
            with connection.Consumer(queue, callbacks=[count], accept=["json"], no_ack=True):
                ready.set()
                while not stop.is_set():
                    try:
                        connection.drain_events(timeout=0.5)
                    except TimeoutError:
                        continue

    with in_thread(read):
        if not ready.wait(30):
            raise RuntimeError("nobody listens to Celery's events")
        yield


@contextmanager
def watched(arm: PenstockArm, ports: Sequence[int], key: str, witness: Witness) -> Iterator[None]:
    """Each port is read as often as the shipped Prometheus does, and one console stays open."""
    began = threading.Event()

    def scrape(stop: threading.Event) -> None:
        with httpx.Client(timeout=5) as client:
            while not stop.wait(5):
                for port in ports:
                    client.get(f"http://127.0.0.1:{port}/metrics").raise_for_status()

    def look(stop: threading.Event) -> None:
        headers, path = {"Authorization": f"Bearer {key}"}, f"{arm.url}/v1/admin/overview/events"
        with httpx.Client(timeout=30) as client, client.stream("GET", path, headers=headers) as answer:
            for line in answer.raise_for_status().iter_lines():
                witness.overviews += line.startswith("event: overview")
                began.set()
                if stop.is_set():
                    return

    with in_thread(scrape), in_thread(look):
        if not began.wait(30):
            raise RuntimeError("the console was shown nothing")
        yield


def one_round(on: Side, off: Side, jobs: int, rate: float | None) -> dict[str, float]:
    """Microseconds of CPU a job on each side, of two runs each."""
    half = jobs // 2
    spent = {ON: 0.0, OFF: 0.0}
    for name, side in ((ON, on), (OFF, off), (OFF, off), (ON, on)):
        spent[name] += side.run(half, rate)
    found = {name: 1e6 * seconds / (2 * half) for name, seconds in spent.items()}
    print(f"  {found[ON]:.0f} µs with, {found[OFF]:.0f} without: {found[ON] / found[OFF]:.3f}", flush=True)
    return found


def figures(rounds: Sequence[dict[str, float]]) -> list[Figure]:
    on, off = (tuple(one[name] for one in rounds) for name in (ON, OFF))
    ratios = tuple(a / b for a, b in zip(on, off, strict=True))
    low, high = interval(ratios)
    return [
        Figure(f"{ON}: CPU per job", on, "µs"),
        Figure(f"{OFF}: CPU per job", off, "µs"),
        Figure("CPU with ÷ without", ratios, "x", at_most=MOST),
        Figure("its median, 95 % sure: from", (low,), "x"),
        Figure("its median, 95 % sure: to", (high,), "x"),
    ]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median is with 95 % certainty: of medians of samples drawn from the rounds anew."""
    chance = random.Random(1)  # noqa: S311 - no secret
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    return medians[int(0.025 * _RESAMPLES)], medians[int(0.975 * _RESAMPLES)]


def prove(on: Side, off: Side, port: int) -> None:
    """Raises where a side was not what it is called."""
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text.splitlines()
    on.witness.counted = sum(float(line.split()[-1]) for line in lines if line.startswith(f"{_COUNTED}{{"))
    for name, side in ((ON, on), (OFF, off)):
        print(f"{name}: {side.witness.said()}")
    seen = on.witness
    if seen.counted < seen.jobs or seen.events < seen.jobs or not seen.overviews:
        raise RuntimeError(f"not everything was on: {seen}")
    if off.witness.events or off.witness.overviews:
        raise RuntimeError(f"not everything was off: {off.witness}")


@contextmanager
def sides() -> Iterator[tuple[Side, Side, dict[str, int]]]:
    ports = {name: free_port() for name in _METERED}
    unmeasured = {"PYTHONPATH": f"{Path(__file__).parent / 'unmeasured'}:{ROOT}"}
    with (
        open_services() as services,
        open_services() as others,
        tempfile.TemporaryDirectory() as on_folder,
        tempfile.TemporaryDirectory() as off_folder,
        penstock(services, Path(on_folder), metrics=ports) as seen,
        penstock(others, Path(off_folder), environment=unmeasured) as unseen,
    ):
        assert seen.platform is not None  # noqa: S101 - the types' proof
        key, witness = seen.platform.key("operators", "--scope", "admin"), Witness()
        watch = partial(watched, seen, list(ports.values()), key, witness)
        yield Side(seen, services, watch, witness), Side(unseen, others, nullcontext), ports


def main() -> int:
    parser = measure.parser(__doc__, rounds=10)
    parser.add_argument("--jobs", type=int, default=1500, help="jobs per round and side")
    parser.add_argument("--rate", type=float, help="jobs a second; else as many as there can be")
    given = parser.parse_args()
    with sides() as (on, off, ports):
        for side in (on, off):
            side.run(500, given.rate)  # warm
        rounds = [one_round(on, off, given.jobs, given.rate) for _ in range(given.rounds)]
        prove(on, off, ports["api"])
    return measure.report("observability", figures(rounds), to=given.json)


if __name__ == "__main__":
    sys.exit(main())
