"""`penstock up` as a process of its own, for tests that use the whole platform without any service."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from tests.local_servers import free_port

ROOT: Final = Path(__file__).resolve().parents[1]


@dataclass
class Up:
    process: "subprocess.Popen[str]"
    url: str
    key: str
    folder: Path

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.key}"}, timeout=60)

    def stop(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


def environment(**settings: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return inherited | settings


@contextmanager
def up(folder: Path, *, port: int = 0, **settings: str) -> Iterator[Up]:
    command = [sys.executable, "-m", "cli.main", "up", "--port", str(port), "--data-dir", str(folder)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = [process.stdout.readline(), process.stdout.readline()]
        assert "ready at" in said[0], said
        yield Up(process, said[0].split()[-1], said[1].split()[-1], folder)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@contextmanager
def lonely_api(folder: Path, key: str) -> Iterator[Up]:
    """An API on SQLite that no worker, relay or upkeep stands behind; `key` is the development key."""
    port = free_port()
    with up(folder, PENSTOCK_BOOTSTRAP_KEY=key) as first:
        first.stop(signal.SIGTERM)
    settings = {
        "PENSTOCK_DATABASE__URL": f"sqlite+aiosqlite:///{folder}/penstock.db",
        "PENSTOCK_REDIS__URL": "memory://",
        "PENSTOCK_BROKER__URL": "memory-priority://",
        "PENSTOCK_API__PORT": str(port),
    }
    command = [sys.executable, "-m", "cli.main", "api"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(**settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        until_answered(f"{url}/health")
        yield Up(process, url, key, folder)
    finally:
        process.terminate()
        process.wait(30)


def until_answered(url: str, within: float = 60.0) -> None:
    end = time.monotonic() + within
    while time.monotonic() < end:
        try:
            httpx.get(url, timeout=2).raise_for_status()
        except httpx.TransportError:
            time.sleep(0.1)  # a foreign process that only a probe can see
        else:
            return
    raise TimeoutError(f"{url} did not answer within {within:.0f} s")
