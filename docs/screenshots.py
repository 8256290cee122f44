"""Takes the pictures of docs/how-to/flower.md: `python -m docs.screenshots`, where Chromium is installed."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx

from tests.flower import (
    LOGIN,
    build_environment,
    cancel_running,
    finished,
    paused_worker,
    queue_lengths,
    running_flower,
    submit,
    submit_refused,
    tasks,
    until,
)
from tests.platform import Platform, running_platform
from tests.services import Services, open_services

IMAGES: Final = Path(__file__).parent / "images"
_CLASSES: Final = ("premium", "standard", "bulk")
_WAITING: Final = 6
_CHROMIUM: Final = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # The tables are filled by scripts: so many milliseconds of the page's own time.
    *("--hide-scrollbars", "--virtual-time-budget=5000"),
)


def main() -> None:
    build_environment()
    with open_services() as services, tempfile.TemporaryDirectory() as folder:
        if services.broker_api is None:
            sys.exit("RabbitMQ's management plugin is not enabled.")
        with (
            _platform(services, Path(folder)) as platform,
            running_flower(platform, services.broker_api) as flower,
            platform.client(platform.key("acme")) as client,
        ):
            _run_jobs(client, flower)
            _take(flower, "/workers", IMAGES / "flower-workers.png", height=520)
            _take(flower, "/tasks", IMAGES / "flower-tasks.png", height=790)
            with paused_worker(platform):
                for number in range(_WAITING):
                    submit(client, service_class=_CLASSES[number % 5 % 3])
                until(lambda: _total(flower) == _WAITING, lambda: queue_lengths(flower))
                _take(flower, "/broker", IMAGES / "flower-broker.png", height=420)


@contextmanager
def _platform(services: Services, folder: Path) -> Iterator[Platform]:
    """With the names that a reader's own platform has, and not this machine's."""
    named = replace(services, namespace="penstock", redis_url=services.redis_url.removesuffix("/0") + "/9")
    with running_platform(named, folder) as platform:
        platform.stop("worker")
        platform.start("worker", "--hostname", "worker-1@penstock")
        yield platform


def _run_jobs(client: httpx.Client, flower: httpx.Client) -> None:
    jobs = [submit(client, service_class=_CLASSES[n % 3], priority=n % 10) for n in range(7)]
    jobs += [submit_refused(client), cancel_running(client)]
    for job_id in jobs:
        finished(client, job_id)
    endings = {"SUCCESS", "FAILURE", "REVOKED"}
    until(
        lambda: {job_id for job_id, task in tasks(flower).items() if task["state"] in endings} >= set(jobs),
        lambda: tasks(flower),
    )


def _total(flower: httpx.Client) -> int:
    return sum(length or 0 for length in queue_lengths(flower).values())


def _take(flower: httpx.Client, path: str, picture: Path, *, height: int) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("Chromium is not installed.")
    picture.parent.mkdir(exist_ok=True)
    address = str(flower.base_url.copy_with(username=LOGIN[0], password=LOGIN[1], path=path))
    with tempfile.TemporaryDirectory(prefix="penstock-chromium-") as profile:
        options = [f"--user-data-dir={profile}", f"--window-size=1280,{height}", f"--screenshot={picture}"]
        done = subprocess.run(  # noqa: S603 - our own arguments
            [browser, *_CHROMIUM, *options, address], capture_output=True, text=True, timeout=120, check=False
        )
    if done.returncode or not picture.exists():
        sys.exit(f"Chromium took no picture of {path}: {done.stderr[-1000:]}")


if __name__ == "__main__":
    main()
