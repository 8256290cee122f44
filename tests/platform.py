"""The whole platform as real processes on real services, for acceptance tests and benchmarks."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from tests.services import Services

_PATIENCE: Final = 150.0  # five interpreters that start at once on a busy machine
PROCESSES: Final = ("api", "relay", "upkeep", "worker", "deliver")


@dataclass
class Platform:
    """Running processes, by name, and the address of their API."""

    environment: dict[str, str]
    url: str
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    metrics: dict[str, int] = field(default_factory=dict)  # ports, by process

    def run(self, *arguments: str) -> str:
        """One `penstock` command to its end; its standard output."""
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"penstock {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def start(self, name: str, *arguments: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        port = {"PENSTOCK_METRICS__PORT": str(self.metrics[name])} if name in self.metrics else {}
        with log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "cli.main", name, *arguments],
                env=self.environment | port,
                stdout=log,
                stderr=log,
            )

    def stop(self, name: str, number: int = signal.SIGTERM, within: float = 30.0) -> int:
        process = self.processes.pop(name)
        process.send_signal(number)
        try:
            return process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise

    def key(self, tenant: str, *arguments: str) -> str:
        """A new tenant's key."""
        self.run("tenants", "create", tenant)
        return self.run("keys", "create", tenant, *arguments).strip().splitlines()[-1].strip()

    def client(self, key: str) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=70)

    def wait_until_ready(self) -> None:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise RuntimeError(f"{name} ended with {process.returncode}: {self.log(name)}")
            try:
                if httpx.get(f"{self.url}/ready", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)  # foreign processes that only a probe can see
        raise RuntimeError(f"not ready: {httpx.get(f'{self.url}/ready').text} {self.log('worker')}")

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]


@contextmanager
def running_platform(
    services: Services,
    folder: Path,
    *,
    processes: Sequence[str] = PROCESSES,
    metrics: Mapping[str, int] | None = None,
    **settings: str,
) -> Iterator[Platform]:
    """Migrated and ready; `settings` are further environment names without their prefix.

    Without `processes` it is only migrated, and the caller starts what it wants. `metrics` are the ports of
    processes that show theirs.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = _environment(services.environment(), PENSTOCK_API__PORT=str(port), PENSTOCK_URL=url)
    environment["PENSTOCK_STORAGE__URL"] = str(folder / "files")
    environment |= {f"PENSTOCK_{name}": value for name, value in settings.items()}
    platform = Platform(environment, url, folder, metrics=dict(metrics or {}))
    platform.run("migrate")
    try:
        for name in processes:
            platform.start(name)
        if processes:
            platform.wait_until_ready()
        yield platform
    except Exception as error:
        for name in platform.processes:
            error.add_note(f"--- {name}: {platform.log(name)}")
        raise
    finally:
        for name in list(platform.processes):
            platform.stop(name)


def _environment(services: Mapping[str, str], **more: str) -> dict[str, str]:
    """Ours and nothing of the developer's own PENSTOCK_ settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return inherited | dict(services) | more


def wait_for(client: httpx.Client, job_ids: Sequence[str], *, within: float = 240.0) -> list[dict[str, Any]]:
    """The finished jobs, in the order asked for: one list request per hundred, newest first."""
    wanted, found = set(job_ids), {}
    end = time.monotonic() + within
    while wanted:
        if time.monotonic() > end:
            what = f"{len(wanted)} of {len(job_ids)} jobs are not finished"
            raise TimeoutError(f"{what}: {_stuck(client, wanted)}")
        missing = min(wanted)
        job = client.get(f"/v1/jobs/{missing}", params={"wait": 10}).raise_for_status().json()
        if job["status"] in {"completed", "failed", "cancelled", "expired"}:
            found |= {one["id"]: one for one in _finished(client) if one["id"] in wanted}
            found[missing] = job
            wanted -= found.keys()
    return [found[job_id] for job_id in job_ids]


def _stuck(client: httpx.Client, job_ids: Iterable[str]) -> list[Any]:
    """What became of a few of them: nothing else tells a lost message from a slow machine afterwards."""
    timelines = [client.get(f"/v1/jobs/{job_id}/timeline") for job_id in sorted(job_ids)[:3]]
    return [answer.json() for answer in timelines]


def _finished(client: httpx.Client) -> Iterator[dict[str, Any]]:
    after: str | None = None
    while True:
        parameters: dict[str, str | int] = {"limit": 100, "status": "completed"}
        if after:
            parameters["after"] = after
        page = client.get("/v1/jobs", params=parameters).raise_for_status().json()
        yield from page["data"]
        if not page["has_more"]:
            return
        after = page["last_id"]
