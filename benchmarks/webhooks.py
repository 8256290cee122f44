"""Does one receiver that hangs delay the others? Real processes, real services, receivers on loopback.

Run: python -m benchmarks.webhooks [--events 150] [--rounds 7] [--json FILE]
Rounds without and with a hanging receiver alternate, so that other load on the machine meets both alike.
Latency is from the event's own timestamp to its arrival. Exits non-zero where the bound does not hold.
"""

import contextlib
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import httpx

from benchmarks import measure
from benchmarks.measure import Figure, quantile, ratio
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


def main() -> int:
    parser = measure.parser(__doc__, rounds=7)
    parser.add_argument("--events", type=int, default=150, help="of each round")
    given = parser.parse_args()
    board = Board()
    with WebhookReceiver(board.rule) as receiver, _client(receiver) as client:
        others = [_endpoint(client, f"{receiver.url}/{n}") for n in range(_OTHERS)]
        hangs = _endpoint(client, f"{receiver.url}/hangs")
        _round(client, board, others, given.events)  # warm

        def alone() -> dict[str, float]:
            return _round(client, board, others, given.events)

        def beside() -> dict[str, float]:
            for _ in range(_HANGING):
                _send(client, hangs)
            return _round(client, board, others, given.events)

        found = measure.interleaved(given.rounds, {"alone": alone, "beside": beside})
        board.late.set()
    return measure.report("webhooks: one receiver hangs", _figures(found), to=given.json)


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


def _round(client: httpx.Client, board: Board, endpoints: list[str], events: int) -> dict[str, float]:
    """Sends at a steady rate, whatever comes of it, and waits for all; milliseconds."""
    board.latencies = []
    began = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        for n in range(events):
            time.sleep(max(0.0, began + n / _RATE - time.monotonic()))
            threads.submit(_send, client, endpoints[n % len(endpoints)])
    while len(board.latencies) < events:
        time.sleep(0.02)
    return {f"p{percent}": 1e3 * quantile(board.latencies, percent) for percent in (50, 99)}


def _figures(found: dict[str, dict[str, list[float]]]) -> list[Figure]:
    figures = [
        Figure(f"{name}, {percentile}", tuple(values), "ms")
        for name, percentiles in found.items()
        for percentile, values in percentiles.items()
    ]
    p99 = ratio(
        "p99 beside one that hangs / alone", found["beside"]["p99"], found["alone"]["p99"], at_most=1.2
    )
    return [*figures, p99]


if __name__ == "__main__":
    sys.exit(main())
