"""A marked prompt goes through everything, and is nowhere that operators look."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import psutil
import pytest
from kombu import Connection

from tests.fakes.webhook_receiver import WebhookReceiver
from tests.local_servers import free_port
from tests.platform import PROCESSES, Platform, running_platform, wait_for
from tests.prometheus import until
from tests.services import Services

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

MARK: Final = "canary-Xq7"
QUESTION: Final = f"where is my order {MARK}"


@dataclass
class CeleryEvents:
    """Every Celery event of the virtual host, as its bytes were."""

    url: str
    seen: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        from celery import Celery

        app = Celery("canary", broker=self.url, set_as_current=False)
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(
                connection, handlers={"*": lambda one: self.seen.append(repr(one))}
            )
            while not self._stop.is_set():
                try:
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)
                except TimeoutError:
                    continue

    def stop(self) -> None:
        self._stop.set()


@dataclass
class Everything:
    """All that an operator can look at."""

    platform: Platform
    collector: WebhookReceiver
    events: CeleryEvents
    broker: list[str] = field(default_factory=list)

    def texts(self) -> Iterator[tuple[str, str]]:
        for path in sorted(self.platform.folder.glob("*.log")):
            yield path.name, path.read_text(errors="replace")
        for name, port in self.platform.metrics.items():
            yield f"metrics of {name}", httpx.get(f"http://127.0.0.1:{port}/metrics").text
        yield "traces", " ".join(call.body.decode("latin-1") for call in self.collector.received)
        yield "Celery events", " ".join(self.events.seen)
        yield "broker messages", " ".join(self.broker)


@pytest.fixture(scope="module")
def everything(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Everything]:
    events = CeleryEvents(services.broker_url)
    thread = threading.Thread(target=events.run)
    with WebhookReceiver() as collector, WebhookReceiver() as hooks:
        settings = {
            "LOG__LEVEL": "debug",
            "LOG__FORMAT": "json",
            "TRACING__ENABLED": "true",
            "TRACING__ENDPOINT": f"http://127.0.0.1:{collector.port}",
            "WEBHOOKS__ALLOW_HTTP": "true",
            "WEBHOOKS__ALLOWED_NETWORKS": '["127.0.0.0/8"]',
            "WEBHOOKS__PORTS": f"[443, {hooks.port}]",
        }
        ports = {name: free_port() for name in PROCESSES}
        folder: Path = tmp_path_factory.mktemp("canary")
        with running_platform(services, folder, metrics=ports, **settings) as platform:
            thread.start()
            seen = Everything(platform, collector, events)
            try:
                with platform.client(platform.key("canary")) as client:
                    go_through_everything(client, seen, services, hooks)
                yield seen
            finally:
                events.stop()
                thread.join()


def go_through_everything(
    client: httpx.Client, seen: Everything, services: Services, hooks: WebhookReceiver
) -> None:
    """Answers, refusals of every kind, a message at rest in the broker, and a crash of the engine."""
    webhook = {"url": hooks.url, "events": ["job.completed", "job.failed"]}
    answered = [submit(client, webhook=webhook, metadata={"note": MARK}, tags=[MARK]) for _ in range(4)]
    # The engine refuses it, and quotes the mark: llama.cpp looks for what a schema refers to.
    refused = submit(client, response_format=shape({"$ref": f"#/$defs/{MARK}"}), webhook=webhook)
    no_schema = {"response_format": shape({"type": MARK})}
    for bad in ({"max_tokens": MARK}, {MARK: 1}, {"prompt": MARK * 20_000}, {"model": MARK}, no_schema):
        assert client.post("/v1/jobs", json={"prompt": QUESTION} | bad).status_code == 422
    assert client.post("/v1/jobs", content=f'{{"prompt": "{MARK}'.encode()).status_code == 400
    assert client.get(f"/v1/jobs/{MARK}").status_code == 404
    wait_for(client, [*answered, refused])
    assert status(client, refused) == "failed"
    hooks.wait(5)
    crash_the_engine(client, seen)
    keep_messages(client, seen, services)


def submit(client: httpx.Client, **changes: Any) -> str:
    body = {"prompt": QUESTION, "max_tokens": 8} | changes
    job_id: str = client.post("/v1/jobs", json=body).raise_for_status().json()["id"]
    return job_id


def shape(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": MARK, "schema": schema}}


def crash_the_engine(client: httpx.Client, seen: Everything) -> None:
    """A job that writes for long loses its engine in the middle."""
    numbers = {"type": "array", "minItems": 400, "items": {"type": "integer"}}
    job_id = submit(client, max_tokens=1500, response_format=shape(numbers))
    until(lambda: status(client, job_id) == "running", "the job runs")
    for child in psutil.Process(seen.platform.processes["worker"].pid).children(recursive=True):
        child.send_signal(signal.SIGKILL)
    wait_for(client, [job_id])


def keep_messages(client: httpx.Client, seen: Everything, services: Services) -> None:
    """What the broker holds while no worker takes it."""
    os.kill(seen.platform.processes["worker"].pid, signal.SIGSTOP)
    try:
        waiting = [submit(client) for _ in range(40)]
        queue_name = f"{services.namespace}.jobs.default.standard"
        with Connection(services.broker_url) as connection:
            channel = connection.channel()

            def found() -> bool:
                message = channel.basic_get(queue_name)
                if message is None:
                    return False
                seen.broker.append(f"{message.body!r} {message.headers!r}")
                channel.basic_reject(message.delivery_tag, requeue=True)
                return True

            until(found, "a message rests in the broker")
    finally:
        os.kill(seen.platform.processes["worker"].pid, signal.SIGCONT)
    wait_for(client, waiting)


def status(client: httpx.Client, job_id: str) -> str:
    found: str = client.get(f"/v1/jobs/{job_id}").raise_for_status().json()["status"]
    return found


def test_no_log_metric_message_event_or_trace_holds_what_was_asked(everything: Everything) -> None:
    texts = dict(everything.texts())

    assert {name for name, text in texts.items() if not text} == set(), "nothing was seen there"
    assert {name for name, text in texts.items() if MARK in text} == set()
    assert {name for name, text in texts.items() if "my order" in text} == set()


def test_a_log_has_one_event_on_a_line_and_a_jobs_events_name_it(everything: Everything) -> None:
    lines = [
        line
        for path in everything.platform.folder.glob("*.log")
        for line in path.read_text(errors="replace").splitlines()
    ]
    # Celery itself says in plain words that a worker goes.
    events = [json.loads(line) for line in lines if line.strip() and not line.startswith("worker: ")]

    ended = [event for event in events if event["event"] in {"job_completed", "job_ended", "job_given_back"}]
    assert ended
    assert all({"job", "tenant", "attempt", "model"} <= event.keys() for event in ended)
