"""Webhooks under faults, with real processes: every end is told, whatever dies and however it is answered."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from standardwebhooks import Webhook

from tests.fakes.webhook_receiver import OK, Answer, Received, WebhookReceiver
from tests.faults.servers import private_servers, private_services
from tests.platform import Platform, running_platform, wait_for
from tests.services import Services, _rabbitmqctl

pytestmark = pytest.mark.timeout(300)

JOBS = 60
# Times short enough for a test; every mechanism is the product's.
QUICK = {
    "WEBHOOKS__ALLOW_HTTP": "true",
    "WEBHOOKS__ALLOWED_NETWORKS": '["127.0.0.0/8"]',
    "WEBHOOKS__SCHEDULE": str(["100ms"] * 30).replace("'", '"'),
    "WEBHOOKS__TIMEOUT": "2s",
    "WEBHOOKS__LEASE": "5s",
    "WEBHOOKS__POLL": "200ms",
    "WEBHOOKS__BREAKER_PAUSE": "200ms",
    "WEBHOOKS__BREAKER_LONGEST": "400ms",
}


def settings_for(*receivers: WebhookReceiver) -> dict[str, str]:
    return {**QUICK, "WEBHOOKS__PORTS": str([443, *(receiver.port for receiver in receivers)])}


class Troublesome:
    """Answers each event twice in a way of its own before it takes it; keeps what it took."""

    def __init__(self) -> None:
        self.taken: dict[str, str] = {}
        self._calls: Counter[str] = Counter()
        self._kinds: dict[str, int] = {}
        self._lock = threading.Lock()
        self.late = threading.Event()

    def __call__(self, call: Received, _: int) -> Answer:
        with self._lock:
            self._calls[call.event_id] += 1
            kind = self._kinds.setdefault(call.event_id, len(self._kinds) % 6)
            if self._calls[call.event_id] > 2 or kind == 0:
                self.taken[call.event_id] = call.event["data"]["id"]
                return OK
        return (
            Answer(500),
            Answer(429, {"Retry-After": "1"}),
            Answer(reset=True),
            Answer(302, {"Location": "http://127.0.0.1:1/"}),
            Answer(hold=self.late),
        )[kind - 1]


@pytest.fixture
def troublesome() -> Iterator[tuple[WebhookReceiver, Troublesome]]:
    rule = Troublesome()
    with WebhookReceiver(rule) as receiver:
        yield receiver, rule
        rule.late.set()


@pytest.fixture
def gone() -> Iterator[WebhookReceiver]:
    with WebhookReceiver(lambda *_: Answer(410)) as receiver:
        yield receiver


@pytest.mark.services
def test_every_end_is_told_whatever_dies(
    services: Services,
    tmp_path: Path,
    troublesome: tuple[WebhookReceiver, Troublesome],
    gone: WebhookReceiver,
) -> None:
    receiver, rule = troublesome
    with (
        running_platform(services, tmp_path, **settings_for(receiver, gone)) as platform,
        platform.client(platform.key("told")) as client,
        platform.client(platform.key("gone")) as other,
    ):
        endpoint = other.post("/v1/webhook_endpoints", json={"url": gone.url}).raise_for_status().json()
        silent = submit(other, {}, 20)
        wait_for(other, silent)
        quiet(other)
        calls_to_gone = len(gone.received)
        jobs = submit(client, {"webhook": {"url": receiver.url}}, JOBS)
        silent = submit(other, {}, 20)
        disturb(platform, services, receiver)
        wait_for(client, jobs)
        wait_for(other, silent)
        receiver.wait_until(lambda _: len(rule.taken) >= JOBS, 120)
        settled(client, jobs, {"delivered"})
        seen = other.get(f"/v1/webhook_endpoints/{endpoint['id']}").json()

    assert sorted(rule.taken.values()) == sorted(jobs)
    assert len(rule.taken) == JOBS
    bodies = {call.event_id: call.body for call in receiver.received}
    assert all(call.body == bodies[call.event_id] for call in receiver.received)
    assert (seen["enabled"], seen["disabled_reason"]) == (False, "gone")
    # Only those that were under way when the first 410 came, and none afterwards.
    assert 1 <= calls_to_gone <= 4
    assert len(gone.received) == calls_to_gone


@pytest.mark.services
def test_every_end_is_told_although_the_broker_is_killed(
    services: Services, tmp_path: Path, troublesome: tuple[WebhookReceiver, Troublesome]
) -> None:
    """On servers of its own: `services`, asked for first, says whether they can be started at all."""
    receiver, rule = troublesome
    with (
        private_servers(tmp_path) as private,
        private_services(private, "told") as own,
        running_platform(own, tmp_path, **settings_for(receiver)) as platform,
        platform.client(platform.key("told")) as client,
    ):
        jobs = submit(client, {"webhook": {"url": receiver.url}}, JOBS)
        receiver.wait(5, 120)
        private.rabbitmq.restart(signal.SIGKILL)
        wait_for(client, jobs)
        receiver.wait_until(lambda _: len(rule.taken) >= JOBS, 120)
        settled(client, jobs, {"delivered"})

    assert sorted(rule.taken.values()) == sorted(jobs)
    assert len(rule.taken) == JOBS


def submit(client: httpx.Client, more: dict[str, Any], count: int) -> list[str]:
    bodies = [{"prompt": f"where is my order A{n}", "max_tokens": 4, **more} for n in range(count)]
    answer = client.post("/v1/jobs/bulk", json={"jobs": bodies}).raise_for_status()
    return [one["job"]["id"] for one in answer.json()["data"]]


def disturb(platform: Platform, services: Services, receiver: WebhookReceiver) -> None:
    """Kills the deliverer twice in the middle of its calls, and cuts every connection to the broker."""
    for calls in (5, 40):
        receiver.wait(calls, 120)
        platform.stop("deliver", signal.SIGKILL)
        platform.start("deliver")
        _rabbitmqctl("close_all_connections", "--vhost", services.namespace, "a test")


def settled(client: httpx.Client, jobs: list[str], states: set[str]) -> None:
    """Every job has one delivery, and it is in one of the states."""
    for job_id in jobs:
        delivery: dict[str, Any] = {"state": "pending"}
        while delivery["state"] in {"pending", "delivering"}:
            # The receiver's answer is recorded a moment after it was given.
            [delivery] = client.get("/v1/webhook_deliveries", params={"job_id": job_id}).json()["data"]
        assert delivery["state"] in states, delivery


def quiet(client: httpx.Client) -> None:
    """Nothing is to be sent to the tenant any more."""
    for state in ("pending", "delivering", "pending"):
        while client.get("/v1/webhook_deliveries", params={"state": state}).json()["data"]:
            pass


def test_the_embedded_platform_delivers_and_listens(tmp_path: Path) -> None:
    with WebhookReceiver() as receiver, embedded(tmp_path, receiver) as (url, key):
        headers = {"Authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, headers=headers, timeout=70) as client:
            made = client.post("/v1/webhook_endpoints/default/rotate_secret").raise_for_status().json()
            ask = {"prompt": "where is my order", "max_tokens": 4, "webhook": {"url": receiver.url}}
            job = client.post("/v1/jobs", json=ask).raise_for_status().json()
            [call, *_] = receiver.wait(1, 60)
            settled(client, [job["id"]], {"delivered"})

    assert Webhook(made["secret"]).verify(call.body, call.headers)["data"]["id"] == job["id"]


class embedded:  # noqa: N801 - read as a with-statement
    """`penstock up` as a child process."""

    def __init__(self, folder: Path, receiver: WebhookReceiver) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
        settings = {f"PENSTOCK_{name}": value for name, value in settings_for(receiver).items()}
        command = [sys.executable, "-m", "cli.main", "up", "--port", "0", "--data-dir", str(folder / "data")]
        self._log = (folder / "up.log").open("wb")
        self._process = subprocess.Popen(
            command, env=inherited | settings, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def __enter__(self) -> tuple[str, str]:
        said = self._process.stdout
        assert said is not None
        found = [re.search(r"(http://\S+|sk-\S+)", said.readline()) for _ in range(2)]
        url, key = (match[1] for match in found if match)
        return url, key

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()
