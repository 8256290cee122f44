"""HTTP/2 through the proxy that `docker-compose.yml` ships, with clients that speak it."""

import asyncio
import json
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import h2.config
import h2.connection
import h2.events
import h2.settings
import httpx
import pytest

from tests.embedded import Up, up
from tests.haproxy import Proxy, running_proxy

pytestmark = pytest.mark.timeout(240)

STREAMS = 9
CHAT: dict[str, Any] = {
    "model": "default",
    "messages": [{"role": "user", "content": "How long does a refund take"}],
    "max_tokens": 16,
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("platform")) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(platform: Up, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    with running_proxy(folder, platform.url, STREAMS=str(STREAMS), KEEP_ALIVE="500ms") as proxy:
        yield proxy


@pytest.fixture
def headers(platform: Up) -> dict[str, str]:
    return {"Authorization": f"Bearer {platform.key}"}


@pytest.fixture
def client(proxy: Proxy, headers: dict[str, str]) -> Iterator[httpx.Client]:
    """HTTP/2 from the first byte, without TLS."""
    with httpx.Client(
        base_url=proxy.plain, headers=headers, http1=False, http2=True, timeout=60
    ) as connected:
        yield connected


def test_an_answer_comes_over_http2_without_tls(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json=CHAT)

    assert answer.http_version == "HTTP/2"
    assert answer.json()["choices"][0]["message"]["content"]


@pytest.mark.parametrize(("http2", "version"), [(True, "HTTP/2"), (False, "HTTP/1.1")])
def test_tls_negotiates_the_version(
    proxy: Proxy, headers: dict[str, str], *, http2: bool, version: str
) -> None:
    trust = ssl.create_default_context(cafile=proxy.authority)
    with httpx.Client(base_url=proxy.secure, headers=headers, http2=http2, verify=trust) as client:
        answer = client.post("/v1/jobs", json={"prompt": "hello"})

    assert answer.status_code == 202
    assert answer.http_version == version
    assert answer.json()["urls"]["self"].startswith(f"{proxy.secure}/v1/jobs/")


def test_who_says_that_it_was_https_is_not_believed(client: httpx.Client, proxy: Proxy) -> None:
    claimed = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "10.1.2.3"}
    answer = client.post("/v1/jobs", json={"prompt": "hello"}, headers=claimed)

    assert answer.json()["urls"]["self"].startswith(f"{proxy.plain}/v1/jobs/")


async def test_one_connection_carries_more_calls_than_it_has_streams(
    proxy: Proxy, headers: dict[str, str]
) -> None:
    async with httpx.AsyncClient(
        base_url=proxy.plain,
        headers=headers,
        http1=False,
        http2=True,
        timeout=100,
        limits=httpx.Limits(max_connections=1),
    ) as client:
        calls = (client.post("/v1/chat/completions", json=CHAT) for _ in range(3 * STREAMS))
        answers = await asyncio.gather(*calls)
        ends = [answer.extensions["network_stream"].get_extra_info("client_addr") for answer in answers]

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 3 * STREAMS
    assert len(set(ends)) == 1


@pytest.mark.parametrize("encoding", ["br", "gzip", "identity"])
def test_an_event_comes_through_before_the_next_one_exists(client: httpx.Client, encoding: str) -> None:
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    job = client.post("/v1/jobs", json={"prompt": "x", "not_before": later}).raise_for_status().json()
    asked = {"Accept-Encoding": encoding}
    with client.stream("GET", f"/v1/jobs/{job['id']}/events", headers=asked) as stream:
        lines = stream.iter_lines()
        first = next(lines)
        client.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
        rest = list(lines)

    assert stream.headers.get("content-encoding", "identity") == encoding
    assert first == "event: status"
    assert "event: done" in "\n".join(rest)


def test_a_client_that_resets_its_stream_takes_its_job_along(
    client: httpx.Client, proxy: Proxy, headers: dict[str, str]
) -> None:
    numbers = {"type": "array", "minItems": 400, "items": {"type": "integer"}}
    shape = {"type": "json_schema", "json_schema": {"name": "numbers", "schema": numbers}}
    asked = {**CHAT, "max_tokens": 1500, "stream": True, "response_format": shape}
    with RawHttp2(proxy.port) as raw:
        number = raw.post("/v1/chat/completions", headers, asked)
        answer = raw.until(h2.events.ResponseReceived)
        raw.until(h2.events.DataReceived)
        raw.reset(number)
        job = client.get(f"/v1/jobs/{answer['x-job-id']}", params={"wait": 30}).json()

    assert answer[":status"] == "200"
    assert job["status"] == "cancelled"


def test_the_bound_of_streams_is_told_and_an_idle_connection_is_closed(proxy: Proxy) -> None:
    with RawHttp2(proxy.port) as raw:
        raw.read_to_the_end()

    told = [event for event in raw.seen if isinstance(event, h2.events.RemoteSettingsChanged)]
    bound = told[0].changed_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS]
    assert bound.new_value == STREAMS
    assert [event for event in raw.seen if isinstance(event, h2.events.ConnectionTerminated)]


class RawHttp2:
    """One connection, frame by frame: what httpx hides, and what it does not send (a reset)."""

    def __init__(self, port: int) -> None:
        self.seen: list[Any] = []
        self._machine = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._machine.initiate_connection()
        self._send()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def post(self, path: str, headers: dict[str, str], body: Any) -> int:
        number = self._machine.get_next_available_stream_id()
        names = {":method": "POST", ":path": path, ":scheme": "http", ":authority": "penstock.test"}
        names |= {name.lower(): value for name, value in headers.items()}
        self._machine.send_headers(number, [*names.items(), ("content-type", "application/json")])
        self._machine.send_data(number, json.dumps(body).encode(), end_stream=True)
        self._send()
        return int(number)

    def reset(self, number: int) -> None:
        self._machine.reset_stream(number)
        self._send()

    def until(self, kind: type[Any]) -> dict[str, str]:
        """Returns when such an event was seen; with its headers, where it has some."""
        while not (found := [event for event in self.seen if isinstance(event, kind)]):
            assert self._read(), "the proxy closed the connection"
        return dict(getattr(found[0], "headers", ()))

    def read_to_the_end(self) -> None:
        while self._read():
            pass

    def _read(self) -> bool:
        received = self._socket.recv(65_536)
        self.seen += self._machine.receive_data(received)
        self._send()
        return bool(received)

    def _send(self) -> None:
        self._socket.sendall(self._machine.data_to_send())
