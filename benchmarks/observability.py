"""What it costs to be seen: CPU per job with metrics, scrapes, Celery events and a console, and without.

Two platforms stand side by side and take turns. One is as shipped, with a port for each process that is
read as Prometheus does, and a console that is open all the time; in the other, `benchmarks/unmeasured` has
taken the counting and the events out, and nobody watches.

Run: python -m benchmarks.observability [--rounds 5] [--jobs 3000] [--json FILE]
"""

import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from benchmarks import measure
from benchmarks.arms import Arm, penstock
from benchmarks.measure import Figure, ratio
from benchmarks.pipeline import one_round
from tests.local_servers import free_port
from tests.services import open_services

ON, OFF = "with metrics, events and a console", "without"
MOST = 1.05
ROOT = Path(__file__).resolve().parents[1]
_METERED = ("api", "relay", "upkeep", "worker")


@contextmanager
def scraped(ports: Sequence[int], every: float = 5.0) -> Iterator[None]:
    """Reads each port as often as the shipped Prometheus does."""
    stop = threading.Event()

    def read() -> None:
        with httpx.Client(timeout=5) as client:
            while not stop.wait(every):
                for port in ports:
                    client.get(f"http://127.0.0.1:{port}/metrics").raise_for_status()

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def watched(url: str, key: str) -> Iterator[None]:
    """One console that stays open: it reads what it is sent and draws nothing."""
    frames, began, stop = 0, threading.Event(), threading.Event()

    def read() -> None:
        nonlocal frames
        headers = {"Authorization": f"Bearer {key}"}
        path = f"{url}/v1/admin/overview/events"
        with httpx.Client(timeout=30) as client, client.stream("GET", path, headers=headers) as answer:
            for line in answer.raise_for_status().iter_lines():
                frames += line.startswith("event: overview")
                began.set()
                if stop.is_set():
                    return

    thread = threading.Thread(target=read)
    thread.start()
    if not began.wait(30):
        raise RuntimeError("the console was shown nothing")
    try:
        yield
    finally:
        stop.set()
        thread.join()
    print(f"  the console saw {frames} overviews")


def measured(arm: Arm, ports: Sequence[int], key: str, jobs: int) -> dict[str, float]:
    with scraped(ports), watched(arm.url, key):
        return one_round(arm, jobs)


def figures(found: dict[str, dict[str, list[float]]]) -> list[Figure]:
    rows = [Figure(f"{name}: CPU per job", tuple(one["cpu_us"]), "µs") for name, one in found.items()]
    rows += [Figure(f"{name}: jobs per second", tuple(one["rate"]), "1/s") for name, one in found.items()]
    rows.append(ratio("CPU with ÷ without", found[ON]["cpu_us"], found[OFF]["cpu_us"], at_most=MOST))
    return rows


def main() -> int:
    parser = measure.parser(__doc__, rounds=5)
    parser.add_argument("--jobs", type=int, default=3000, help="jobs per round and arm")
    given = parser.parse_args()
    ports = {name: free_port() for name in _METERED}
    unmeasured = {"PYTHONPATH": f"{Path(__file__).parent / 'unmeasured'}:{ROOT}"}
    with (
        open_services() as services,
        open_services() as others,
        tempfile.TemporaryDirectory() as on_folder,
        tempfile.TemporaryDirectory() as off_folder,
        penstock(services, Path(on_folder), metrics=ports) as on,
        penstock(others, Path(off_folder), environment=unmeasured) as off,
    ):
        if on.platform is None:
            raise RuntimeError("it is not our own")
        key = on.platform.key("operators", "--scope", "admin")
        for arm in (on, off):
            one_round(arm, 500)  # warm
        runs = {
            ON: partial(measured, on, list(ports.values()), key, given.jobs),
            OFF: partial(one_round, off, given.jobs),
        }
        found = measure.interleaved(given.rounds, runs)
    return measure.report("observability", figures(found), to=given.json)


if __name__ == "__main__":
    sys.exit(main())
