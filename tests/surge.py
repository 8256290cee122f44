"""A bounded load that moves what dashboards show, for pictures and for the test of their expressions.

Quiet work, then a surge that keeps a queue full however fast the machine is, batches, webhooks to a receiver
that fails now and then, refusals, feedback, and a worker that is killed and started again.
"""

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import orjson

from tests.fakes.webhook_receiver import OK, Answer, Received, WebhookReceiver
from tests.flower import submit_refused
from tests.platform import Platform

CATALOGUE: Final = """
[[model]]
name = "default"
engine = "llamacpp"
path = "bundled:support-tiny"
slots = 8
gpu_hour_price = 2.5
"""
TEMPLATES: Final = """
[[template]]
name = "refund"
phrases = ["how long does a refund take"]
answer = "A refund takes five working days."
"""
_SYSTEM: Final = "You answer questions about orders, refunds and deliveries of a shop, kindly and briefly."
_QUESTIONS: Final = ("where is my order", "how long does a refund take", "can I change my address")
_FAILS_EVERY: Final = 6  # calls of the receiver
_LIMITED: Final = 3  # requests a minute of the tenant that asks for more


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of quiet work before and after the surge and of the surge, and how full it keeps the queue."""

    quiet: float = 45.0
    surge: float = 75.0
    waiting: int = 150
    batch_lines: int = 120
    kills_worker: bool = True


@dataclass
class Surge:
    """Drives a platform; `run` returns when it is idle again."""

    platform: Platform
    receiver: WebhookReceiver
    pace: Pace
    _chance: random.Random = field(default_factory=lambda: random.Random(7))  # noqa: S311 - no secret

    def run(self) -> None:
        key = self.platform.key("acme", "--scope", "jobs", "--scope", "admin")
        other = self.platform.key("globex")
        limited = self.platform.key("initech")
        self.platform.run("tenants", "limit", "initech", "--requests-per-minute", str(_LIMITED))
        with (
            self.platform.client(key) as acme,
            self.platform.client(other) as globex,
            self.platform.client(limited) as initech,
        ):
            acme.post("/v1/webhook_endpoints", json={"url": self.receiver.url}).raise_for_status()
            self._quietly(acme, initech, self.pace.quiet)
            self._submit_batches(globex)
            self._surge(acme, globex)
            self._quietly(acme, initech, self.pace.quiet)
            self._wait_until_idle(acme)

    def _quietly(self, client: httpx.Client, limited: httpx.Client, seconds: float) -> None:
        """A few jobs a second, polled for; now and then a mistake, a thumb, a call too many."""
        end, number = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            job = self._submit(client, self._chance.choice(("premium", "standard", "standard", "bulk")))
            number += 1
            done = client.get(f"/v1/jobs/{job}", params={"wait": 5}).json()
            if done["status"] == "completed" and number % 3 == 0:
                self._score(client, job)
            if number % 7 == 0:
                submit_refused(client)
            if number % 5 == 0:
                client.post("/v1/jobs", json={"prompt": "x", "model": "no-such-model"})
                limited.post("/v1/jobs", json={"prompt": _QUESTIONS[0], "max_tokens": 4})
            time.sleep(0.25)  # the pace of the callers

    def _submit(self, client: httpx.Client, service_class: str) -> str:
        answer = client.post("/v1/jobs", json=self._body(service_class))
        job_id: str = answer.raise_for_status().json()["id"]
        return job_id

    def _body(self, service_class: str, **more: Any) -> dict[str, Any]:
        question = f"{self._chance.choice(_QUESTIONS)} A{self._chance.randint(1000, 9999)}"
        messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}]
        return {"messages": messages, "service_class": service_class, "max_tokens": 192, **more}

    def _score(self, client: httpx.Client, job_id: str) -> None:
        score = 1 if self._chance.random() < 0.85 else -1
        client.post(f"/v1/jobs/{job_id}/feedback", json={"score": score}).raise_for_status()

    def _surge(self, client: httpx.Client, other: httpx.Client) -> None:
        """Tops the queue up once a second; in the middle the worker dies and comes back."""
        began, is_killed = time.monotonic(), not self.pace.kills_worker
        while (spent := time.monotonic() - began) < self.pace.surge:
            self._top_up(client, other)
            if not is_killed and spent > self.pace.surge / 2:
                is_killed = True
                self.platform.stop("worker", signal.SIGKILL)
                self.platform.start("worker")
            time.sleep(1)  # the pace of the callers

    def _top_up(self, client: httpx.Client, other: httpx.Client) -> None:
        waiting = client.get("/v1/admin/overview").json()["totals"]["waiting"]
        missing = min(self.pace.waiting, max(0, self.pace.waiting - waiting))
        # Those that take no less keep the queue full, whatever the others are given.
        firm = [self._body("standard", degradation={"allow": []}) for _ in range(missing)]
        easy = [self._body(kind) for kind in ("premium", "standard", "standard")]
        easy.append(self._body("standard", messages=[{"role": "user", "content": _QUESTIONS[1]}]))
        client.post("/v1/jobs/bulk", json={"jobs": easy + firm[::2]})
        if firm[1::2]:
            other.post("/v1/jobs/bulk", json={"jobs": firm[1::2]})

    def _submit_batches(self, client: httpx.Client) -> None:
        """One that runs, one that is cancelled, and one whose file is bad."""
        good = [self._line(number) for number in range(self.pace.batch_lines)]
        _running, cancelled, _bad = [self._batch(client, lines) for lines in (good, good, [b"{}"])]
        client.post(f"/v1/batches/{cancelled}/cancel").raise_for_status()

    def _line(self, number: int) -> bytes:
        body = self._body("bulk", model="default", max_tokens=64)
        del body["service_class"]
        line = {"method": "POST", "url": "/v1/chat/completions", "custom_id": f"c{number}", "body": body}
        return orjson.dumps(line)

    def _batch(self, client: httpx.Client, lines: list[bytes]) -> str:
        upload = {"file": ("in.jsonl", b"\n".join(lines))}
        file = client.post("/v1/files", files=upload, data={"purpose": "batch"}).raise_for_status().json()
        wanted = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch_id: str = client.post("/v1/batches", json=wanted).raise_for_status().json()["id"]
        return batch_id

    def _wait_until_idle(self, client: httpx.Client, within: float = 120.0) -> None:
        _until(lambda: self._is_idle(client), within)

    def _is_idle(self, client: httpx.Client) -> bool:
        seen = client.get("/v1/admin/overview").json()
        return not seen["totals"]["waiting"] and all(one["finished_at"] for one in seen["batches"])


def _until(holds: Callable[[], bool], within: float) -> None:
    end = time.monotonic() + within
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"the platform is not idle after {within:.0f} s")
        time.sleep(0.5)  # a foreign process that only a probe can see


def _now_and_then() -> Callable[[Received, int], Answer]:
    """A receiver that is overloaded for one call of six."""
    return lambda _, number: Answer(status=503) if number % _FAILS_EVERY == 0 else OK


@contextmanager
def receiving() -> Iterator[WebhookReceiver]:
    with WebhookReceiver(_now_and_then()) as receiver:
        yield receiver


def settings(folder: Path, receiver: WebhookReceiver) -> dict[str, str]:
    """Of a platform that this load is for: a price, templates, and webhooks to this machine."""
    (folder / "models.toml").write_text(CATALOGUE, encoding="utf-8")
    (folder / "templates.toml").write_text(TEMPLATES, encoding="utf-8")
    return {
        "CATALOGUE": str(folder / "models.toml"),
        "OVERLOAD__TEMPLATES": str(folder / "templates.toml"),
        "METRICS__LOOK_EVERY": "1s",
        "WEBHOOKS__ALLOW_HTTP": "true",
        "WEBHOOKS__PORTS": f"[443, {receiver.port}]",
        "WEBHOOKS__ALLOWED_NETWORKS": '["127.0.0.0/8"]',
        "WEBHOOKS__SCHEDULE": '["2s", "5s", "10s"]',
    }
