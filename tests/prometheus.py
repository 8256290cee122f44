"""Prometheus' own binaries, for tests: the checker of rules, and the server."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from tests.local_servers import free_port

ROOT: Final = Path(__file__).resolve().parents[1]
RULES: Final = ROOT / "deploy" / "prometheus"
_PATIENCE: Final = 120.0


def binary(name: str) -> str:
    """Its path; skips the test where it is not installed, and fails it in CI."""
    found = shutil.which(name)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"in CI {name} must be installed (Debian: prometheus)")
        pytest.skip(f"{name} is not installed (Debian: prometheus)")
    return found


@contextmanager
def running_prometheus(
    folder: Path, targets: Mapping[str, list[int]], *, instance: str | None = None
) -> Iterator[httpx.Client]:
    """The shipped rules over processes of this machine, by job name and port, scraped every second.

    `instance`, with {job} in it, is what each process is called in place of its address.
    """
    scrapes = [
        {
            "job_name": job,
            "static_configs": [
                {
                    "targets": [f"127.0.0.1:{port}" for port in ports],
                    "labels": {"instance": instance.format(job=job)} if instance else {},
                }
            ],
        }
        for job, ports in targets.items()
    ]
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES / "rules.yml"), str(RULES / "alerts.yml")],
        "scrape_configs": scrapes,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    port = free_port()
    command = [
        binary("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            until(lambda: _is_ready(client), "Prometheus is ready")
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + _PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {_PATIENCE:.0f} s: {what}")
        time.sleep(0.2)  # a foreign process that only a probe can see


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").status_code == 200
    except httpx.TransportError:
        return False


def health(client: httpx.Client) -> dict[str, str]:
    """Each target's job and what its last scrape said."""
    found = client.get("/api/v1/targets").raise_for_status().json()["data"]["activeTargets"]
    return {target["labels"]["job"]: target["health"] for target in found}


def ask(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    answer = client.get("/api/v1/query", params={"query": expression}).raise_for_status().json()
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def ask_range(
    client: httpx.Client, expression: str, since: float, until_: float, *, step: float
) -> list[dict[str, Any]]:
    """Series with their `values`, pairs of a time and a number as text; raises where it does not parse."""
    asked = {"query": expression, "start": since, "end": until_, "step": step}
    answer = client.get("/api/v1/query_range", params=asked).raise_for_status().json()
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def alerts(client: httpx.Client) -> dict[str, str]:
    """Alerts that are pending or firing."""
    found = client.get("/api/v1/alerts").raise_for_status().json()["data"]["alerts"]
    return {alert["labels"]["alertname"]: alert["state"] for alert in found}
