"""Flower as shipped, beside a running platform: for its acceptance test and the pictures in the docs."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from tests.local_servers import free_port
from tests.platform import Platform

ROOT: Final = Path(__file__).resolve().parents[1]
PYTHON: Final = ROOT / ".venv-flower" / "bin" / "python"
LOGIN: Final = ("penstock", "a test's password")
_PATIENCE: Final = 60.0
_VERSION: Final = "from importlib.metadata import version; print(f'flower=={version(\"flower\")}')"


class FlowerNotInstalled(Exception):
    """Its environment is not there and could not be built."""


def build_environment() -> None:
    """`make flower-env`, unless the pinned Flower is there already."""
    if _installed() in (ROOT / "constraints-flower.txt").read_text(encoding="utf-8").splitlines():
        return
    done = subprocess.run(["make", "flower-env"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FlowerNotInstalled(f"make flower-env: {done.stderr[-2000:]}")


def _installed() -> str | None:
    if not PYTHON.exists():
        return None
    done = subprocess.run([str(PYTHON), "-c", _VERSION], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


@contextmanager
def running_flower(platform: Platform, broker_api: str) -> Iterator[httpx.Client]:
    """A logged in client of a Flower that already hears the events of a worker."""
    user, password = LOGIN
    port = free_port()
    platform.environment |= {
        "PENSTOCK_FLOWER__PYTHON": str(PYTHON),
        "PENSTOCK_FLOWER__PORT": str(port),
        "PENSTOCK_FLOWER__USER": user,
        "PENSTOCK_FLOWER__PASSWORD": password,
        "PENSTOCK_FLOWER__BROKER_API": broker_api,
    }
    platform.start("flower")
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=LOGIN, timeout=10) as client:
            until(lambda: _hears_a_worker(client), lambda: platform.log("flower"))
            yield client
    finally:
        platform.stop("flower")


def until(ready: Callable[[], bool], seen: Callable[[], object]) -> None:
    """Flower learns from events and from the broker's statistics, and tells nobody when it has."""
    end = time.monotonic() + _PATIENCE
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {_PATIENCE:.0f} s: {seen()}")
        time.sleep(0.1)  # a foreign process that only a probe can see


def _hears_a_worker(flower: httpx.Client) -> bool:
    try:
        workers = flower.get("/api/workers", params={"status": True}).raise_for_status().json()
    except httpx.TransportError:
        return False
    return any(workers.values())


def tasks(flower: httpx.Client) -> dict[str, dict[str, Any]]:
    """What Flower knows of each task, by job id."""
    found: dict[str, dict[str, Any]] = flower.get("/api/tasks").raise_for_status().json()
    return found


def queue_lengths(flower: httpx.Client) -> dict[str, int | None]:
    queues = flower.get("/api/queues/length").raise_for_status().json()["active_queues"]
    return {queue["name"]: queue.get("messages") for queue in queues}


@contextmanager
def paused_worker(platform: Platform) -> Iterator[None]:
    """What is released meanwhile stays in the broker."""
    process = platform.processes["worker"]
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def submit(client: httpx.Client, **body: Any) -> str:
    prompt = {"prompt": "where is my order", "max_tokens": 24}
    job_id: str = client.post("/v1/jobs", json=prompt | body).raise_for_status().json()["id"]
    return job_id


def finished(client: httpx.Client, job_id: str) -> str:
    """The job's terminal status."""
    job = client.get(f"/v1/jobs/{job_id}", params={"wait": 30}).raise_for_status().json()
    status: str = job["status"]
    return status


def submit_refused(client: httpx.Client) -> str:
    """A job with a schema that is one, and that no engine can follow: what it refers to is not there."""
    return submit(client, response_format=_schema({"$ref": "#/$defs/nowhere"}))


def cancel_running(client: httpx.Client) -> str:
    """A job that has to write a thousand numbers, and is cancelled before it has."""
    numbers = {"type": "array", "minItems": 1000, "items": {"type": "integer"}}
    job_id = submit(client, max_tokens=1900, response_format=_schema(numbers))
    until(lambda: _status(client, job_id) == "running", lambda: _status(client, job_id))
    client.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    return job_id


def _status(client: httpx.Client, job_id: str) -> str:
    status: str = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()["status"]
    return status


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
