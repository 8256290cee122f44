import socket
from collections.abc import Sequence
from typing import Any

import httpcore
import pytest

from core.errors import TargetRefused
from core.settings import WebhookSettings
from queues.targets import Targets
from workers.webhooks.client import CheckedBackend, WebhookClient

PUBLIC = "93.184.216.34"

HOSTILE = [
    # Loopback and its spellings.
    "https://127.0.0.1/",
    "https://127.1/",
    "https://127.0.1/",
    "https://2130706433/",
    "https://017700000001/",
    "https://0177.0.0.1/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0x7F.1/",
    "https://127.0.0.0x1/",
    "https://00127.0.0.1/",
    "https://127.0.0.1./",
    "https://0/",
    "https://0.0.0.0/",
    "https://0x/",
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::]/",
    # IPv4 inside IPv6.
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://[64:ff9b:1::a00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a9fe:a9fe::1]/",
    "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "https://[2606:4700::5efe:7f00:1]/",
    # Link-local, private, shared, reserved, documentation, multicast.
    "https://169.254.169.254/latest/meta-data",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[fd00:ec2::254]/",
    "https://[fec0::1]/",
    "https://168.63.129.16/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://100.100.100.200/",
    "https://192.0.0.192/",
    "https://192.88.99.1/",
    "https://198.18.0.1/",
    "https://203.0.113.7/",
    "https://[2001:db8::1]/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://[ff02::1]/",
    # Who is the host?
    "https://user@example.com/",
    "https://example.com@127.0.0.1/",
    "https://127.0.0.1:443@example.com/",
    "https://example.com#@127.0.0.1/",
    "https://example.com\\@127.0.0.1/",
    "https://127.0.0.1%2f@example.com/",
    "https://%31%32%37.0.0.1/",
    "https://example.com%00.evil.test/",
    "https://\uff11\uff12\uff17.0.0.1/",
    "https://①②⑦.0.0.1/",
    "https://127。0。0。1/",
    "https://ⓛocalhost/",
    "https://bücher.example/",
    "https://example.com./",
    "https://localhost/",
    "https://localhost./",
    "https://intranet/",
    "https://exa mple.com/",
    "https://example.com\r\nX-Evil: 1/",
    "https:///path",
    "https://",
    "https://[::1/",
    "https://-example.com/",
    "https://exam..ple.com/",
    "//example.com/",
    "",
    # Other schemes and ports.
    "http://example.com/",
    "HTTP://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "unix:///var/run/docker.sock",
    "javascript:alert(1)",
    "https://example.com:22/",
    "https://example.com:80/",
    "https://example.com:6379/",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://example.com:٤٤٣/",
]

REBINDING = [
    ["127.0.0.1"],
    ["169.254.169.254"],
    ["10.1.2.3"],
    ["::1"],
    ["::ffff:10.0.0.1"],
    ["64:ff9b::a9fe:a9fe"],
    ["fd12:3456::1"],
    ["fe80::1"],
    [PUBLIC, "127.0.0.1"],
    ["2606:4700::1", "fd00::1"],
]


class Names:
    """A name service that says what it is told, one answer after the other."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked = 0

    async def lookup(self, _host: str, _port: int) -> Sequence[str]:
        self.asked += 1
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


class Dialled(httpcore.AsyncMockBackend):
    def __init__(self) -> None:
        super().__init__([])
        self.addresses: list[str] = []

    async def connect_tcp(self, host: str, *_: Any, **__: Any) -> Any:
        self.addresses.append(host)
        raise httpcore.ConnectError


def targets(*answers: Sequence[str], **settings: Any) -> Targets:
    return Targets(WebhookSettings(**settings), Names(*(answers or ([PUBLIC],))).lookup)


@pytest.mark.parametrize("url", HOSTILE)
async def test_a_hostile_url_is_refused_by_name_with_a_reason(url: str) -> None:
    names = Names([PUBLIC])
    with pytest.raises(TargetRefused) as refused:
        await Targets(WebhookSettings(), names.lookup).admit(url, "webhook.url")

    assert refused.value.field == "webhook.url"
    assert len(str(refused.value)) > 10
    assert names.asked == 0


def test_the_table_is_long_enough() -> None:
    assert len(set(HOSTILE)) >= 40


@pytest.mark.parametrize("addresses", REBINDING)
async def test_a_name_that_leads_inside_is_refused(addresses: list[str]) -> None:
    with pytest.raises(TargetRefused) as refused:
        await targets(addresses).admit("https://rebind.example.com/hook", "url")

    assert not any(address in str(refused.value) for address in addresses)


async def test_a_name_that_changes_its_mind_is_refused_when_it_is_dialled() -> None:
    rebinding = targets([PUBLIC], ["127.0.0.1"])
    await rebinding.admit("https://rebind.example.com/hook", "url")
    backend, dialled = CheckedBackend(rebinding), Dialled()
    backend._network = dialled

    with pytest.raises(TargetRefused):
        await backend.connect_tcp("rebind.example.com", 443)

    assert dialled.addresses == []


async def test_the_address_that_passed_is_the_one_that_is_dialled() -> None:
    names, dialled = Names([PUBLIC, "93.184.216.35"], ["127.0.0.1"]), Dialled()
    backend = CheckedBackend(Targets(WebhookSettings(), names.lookup))
    backend._network = dialled

    with pytest.raises(httpcore.ConnectError):
        await backend.connect_tcp("example.com", 443)

    assert (dialled.addresses, names.asked) == ([PUBLIC, "93.184.216.35"], 1)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    rules, dialled = targets(), Dialled()
    client = WebhookClient(WebhookSettings(), rules)
    backend = client._pool._network_backend
    assert isinstance(backend, CheckedBackend)
    backend._network = dialled

    with pytest.raises(httpcore.ConnectError):
        await client.post(rules.parse("https://example.com/hook"), b"{}", {})
    await client.close()

    assert dialled.addresses == [PUBLIC]


@pytest.mark.parametrize(
    ("url", "host", "port", "path"),
    [
        ("https://example.com", "example.com", 443, "/"),
        ("https://EXAMPLE.com:443/a?b=c%20d", "example.com", 443, "/a?b=c%20d"),
        ("https://xn--bcher-kva.example/x", "xn--bcher-kva.example", 443, "/x"),
        ("https://93.184.216.34/", PUBLIC, 443, "/"),
        ("https://[2606:4700:0:0::1]/", "2606:4700::1", 443, "/"),
        ("https://api2.example.com:8443/", "api2.example.com", 8443, "/"),
    ],
)
async def test_a_plain_url_is_taken_apart(url: str, host: str, port: int, path: str) -> None:
    rules = targets(ports=(443, 8443))
    await rules.admit(url, "url")

    found = rules.parse(url)

    assert (found.host, found.port, found.path) == (host, port, path)


async def test_an_operator_may_allow_private_networks_and_http() -> None:
    rules = targets(["10.1.2.3"], allow_http=True, ports=(80, 443), allowed_networks=("10.1.0.0/16",))

    await rules.admit("http://receiver/hook", "url")
    await rules.admit("https://10.1.9.9/", "url")

    for url in ("https://10.2.0.1/", "https://127.0.0.1/", "https://[::ffff:10.1.9.9]/"):
        with pytest.raises(TargetRefused):
            await rules.admit(url, "url")


async def test_a_name_that_nobody_knows_is_refused_and_a_silent_name_server_is_not_waited_for() -> None:
    async def unknown(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    async def silent(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "later")

    with pytest.raises(TargetRefused, match="not known"):
        await Targets(WebhookSettings(), unknown).admit("https://nowhere.example.com/", "url")
    await Targets(WebhookSettings(), silent).admit("https://later.example.com/", "url")
