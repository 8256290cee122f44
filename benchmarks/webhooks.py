"""Does one receiver that hangs delay the others? Real processes, real services, receivers on loopback.

    python -m benchmarks.webhooks [--events 150] [--rounds 5]

Rounds without and with a hanging receiver alternate, so that other load on the machine meets both alike.
Latency is from the event's own timestamp to its arrival.
"""

import argparse
import contextlib
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import httpx

from tests.fakes.webhook_receiver import OK, Answer, Received, WebhookReceiver
from tests.platform import running_platform
from tests.services import open_services

_OTHERS = 10
_RATE = 40.0  # events a second to all others together
_HANGING = 20  # events for the one that hangs, at the start of its round


class Board:
    """When each event arrived, by its id."""

    def __init__(self) -> None:
        self.late = threading.Event()
        self.latencies: list[float] = []

    def rule(self, call: Received, _: int) -> Answer:
        if call.path.endswith("/hangs"):
            return Answer(hold=self.late)
        self.latencies.append(time.time() - datetime.fromisoformat(call.event["timestamp"]).timestamp())
        return OK


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=150, help="of each round")
    parser.add_argument("--rounds", type=int, default=5, help="of each kind")
    given = parser.parse_args()
    board = Board()
    with WebhookReceiver(board.rule) as receiver, _client(receiver) as client:
        others = [_endpoint(client, f"{receiver.url}/{n}") for n in range(_OTHERS)]
        hangs = _endpoint(client, f"{receiver.url}/hangs")
        _round(client, board, others, given.events)  # warm
        found: dict[str, list[list[float]]] = {"alone": [], "beside one that hangs": []}
        for _ in range(given.rounds):
            for kind, rounds in found.items():
                if kind != "alone":
                    for _ in range(_HANGING):
                        _send(client, hangs)
                rounds.append(_round(client, board, others, given.events))
        board.late.set()
    _report(found)


@contextlib.contextmanager
def _client(receiver: WebhookReceiver) -> Iterator[httpx.Client]:
    settings = {
        "WEBHOOKS__ALLOW_HTTP": "true",
        "WEBHOOKS__ALLOWED_NETWORKS": '["127.0.0.0/8"]',
        "WEBHOOKS__PORTS": f"[443, {receiver.port}]",
        # It hangs through every round: neither its breaker nor a timeout may help the others.
        "WEBHOOKS__BREAKER_AFTER": "1000000",
        "WEBHOOKS__SCHEDULE": str(["1s"] * 1000).replace("'", '"'),
    }
    with (
        tempfile.TemporaryDirectory() as folder,
        open_services() as services,
        running_platform(services, Path(folder), **settings) as platform,
        platform.client(platform.key("benchmark")) as client,
    ):
        yield client


def _endpoint(client: httpx.Client, url: str) -> str:
    made = client.post("/v1/webhook_endpoints", json={"url": url}).raise_for_status().json()
    return str(made["id"])


def _send(client: httpx.Client, endpoint: str) -> None:
    client.post(f"/v1/webhook_endpoints/{endpoint}/test").raise_for_status()


def _round(client: httpx.Client, board: Board, endpoints: list[str], events: int) -> list[float]:
    """Sends at a steady rate, whatever comes of it, and waits for all."""
    board.latencies = []
    began = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        for n in range(events):
            time.sleep(max(0.0, began + n / _RATE - time.monotonic()))
            threads.submit(_send, client, endpoints[n % len(endpoints)])
    while len(board.latencies) < events:
        time.sleep(0.02)
    return sorted(board.latencies)


def _report(found: dict[str, list[list[float]]]) -> None:
    p99s = {}
    print(f"{'':24} {'p50 ms':>8} {'p99 ms':>8}  p99 of each round, the best first")
    for kind, rounds in found.items():
        each = sorted(_quantile(one, 99) for one in rounds)
        p99s[kind] = statistics.median(each)
        p50 = statistics.median(_quantile(one, 50) for one in rounds)
        print(f"{kind:24} {p50:8.1f} {p99s[kind]:8.1f}  {', '.join(f'{one:.1f}' for one in each)}")
    alone, beside = p99s.values()
    print(f"p99 changed by {100 * (beside / alone - 1):+.1f} %")


def _quantile(values: list[float], percent: int) -> float:
    return 1000 * values[min(len(values) - 1, len(values) * percent // 100)]


if __name__ == "__main__":
    main()
