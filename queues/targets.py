"""Where a webhook may go: asked when a URL is given, and again whenever one is dialled.

The HTTP client is given the literal addresses that passed, so that no second look-up can answer otherwise.
The standard library's `is_global` is not enough: it calls 64:ff9b::a9fe:a9fe and 168.63.129.16 public.
"""

import asyncio
import re
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

from core.errors import TargetRefused
from core.settings import WebhookSettings

Address = IPv4Address | IPv6Address
Lookup = Callable[[str, int], Awaitable[Sequence[str]]]

_LONGEST: Final = 2048
_SCHEMES: Final = {"https": 443, "http": 80}
_AUTHORITY: Final = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::(?P<port>\d{1,5}))?")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?")
# What a URL parser would take for a number, and so for an IPv4 address in disguise.
_NUMBER: Final = re.compile(r"\d+|0x[0-9a-f]*")
# Beyond what the standard library calls not global.
_REFUSED_4: Final = tuple(
    IPv4Network(text)
    for text in (
        "168.63.129.16/32",  # a cloud's own services, metadata among them
        "192.0.0.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_GLOBAL_6: Final = IPv6Network("2000::/3")
_REFUSED_6: Final = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # Teredo, ORCHID, benchmarking and other protocols' own
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",
    )
)
_ISATAP: Final = (0x00005EFE, 0x02005EFE)  # before an IPv4 address in the last half
_THREADS: Final = 32  # a name server that does not answer holds a thread, and must not hold the others
_FRESH: Final = 30.0  # seconds that an admission is believed, so that a busy caller asks a name server once
_REMEMBERED: Final = 1000
_PATIENCE: Final = 2.0  # seconds that a submission waits for a name server


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart; `host` is an address in its one spelling, or a plain ASCII name."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """For the `Host` header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _SCHEMES[self.scheme] else f"{host}:{self.port}"


class NameUnknown(TargetRefused):
    code = "webhook_host_unknown"


class Targets:
    """The rules of one process. `lookup` gives the addresses of a name; tests give their own."""

    def __init__(self, settings: WebhookSettings, lookup: Lookup | None = None) -> None:
        self._settings = settings
        self._lookup = lookup or Resolver(settings.connect_timeout.total_seconds()).lookup
        self._admitted: dict[tuple[str, int], float] = {}

    async def admit(self, url: str, field: str) -> None:
        """Raises `TargetRefused`. A name server that is silent now is asked again at delivery."""
        target = self.parse(url, field)
        place = (target.host, target.port)
        if self._admitted.get(place, 0.0) > time.monotonic():
            return
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.addresses(target.host, target.port, field)
        except (TimeoutError, OSError) as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_NONAME:
                raise NameUnknown(field, "The host's name is not known; correct it.") from error
        if len(self._admitted) >= _REMEMBERED:
            self._admitted.clear()
        self._admitted[place] = time.monotonic() + _FRESH

    def parse(self, url: str, field: str = "url") -> Target:
        """Raises `TargetRefused` for whatever is not a plain URL of an allowed scheme and port."""
        if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or set(url) & set(' \\"<>^`{|}'):
            raise TargetRefused(
                field, f"Write the URL in at most {_LONGEST} plain ASCII characters; hosts in punycode."
            )
        try:
            parts = urlsplit(url)
        except ValueError:
            raise TargetRefused(field, "Is not a URL.") from None
        self._check_scheme(parts.scheme, field)
        if "@" in parts.netloc or "#" in url:
            raise TargetRefused(field, "Leave out user, password and fragment.")
        found = _AUTHORITY.fullmatch(parts.netloc.lower())
        if found is None:
            raise TargetRefused(field, "The host is not a plain name or address.")
        port = int(found["port"] or _SCHEMES[parts.scheme])
        if port not in self._settings.ports:
            allowed = ", ".join(map(str, self._settings.ports))
            raise TargetRefused(field, f"Port {port} is not allowed; allowed: {allowed}.")
        host = self._host(found["six"], found["name"], field)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(parts.scheme, host, port, path)

    async def addresses(self, host: str, port: int, field: str = "url") -> list[str]:
        """What may be dialled for the host. Raises `TargetRefused` when any of its addresses may not be."""
        literal = _as_address(host)
        found = [literal] if literal else [ip_address(text) for text in await self._lookup(host, port)]
        if not found:
            raise NameUnknown(field, "The host's name has no address.")
        for address in found:
            # The address itself stays unsaid: a tenant is not to explore our network by its names.
            if reason := self._objection(address):
                raise TargetRefused(field, f"The host is at {reason}; only public addresses are called.")
        return list(dict.fromkeys(str(address) for address in found))

    def _check_scheme(self, scheme: str, field: str) -> None:
        if scheme not in _SCHEMES:
            raise TargetRefused(field, "Must begin with https://.")
        if scheme == "http" and not self._settings.allow_http:
            raise TargetRefused(field, "Must begin with https://; http is for development only.")

    def _host(self, six: str | None, name: str | None, field: str) -> str:
        if six is not None or name is None or _NUMBER.fullmatch(name.rsplit(".", 1)[-1]):
            address = _as_address(six or name or "")
            if address is None:
                raise TargetRefused(field, "The host is an address in an odd spelling; write it plainly.")
            if reason := self._objection(address):
                raise TargetRefused(field, f"The host is {reason}; only public addresses are called.")
            return str(address)
        if name.endswith("."):
            raise TargetRefused(field, "Leave out the dot at the end of the host.")
        if not all(_LABEL.fullmatch(label) for label in name.split(".")):
            raise TargetRefused(field, "The host is not a plain name.")
        if "." not in name and not self._settings.allowed_networks:
            raise TargetRefused(field, "The host has no domain; only public receivers are called.")
        return name

    def _objection(self, address: Address) -> str | None:
        """Why the address is not called; None where it may be."""
        if any(address.version == net.version and address in net for net in self._settings.allowed_networks):
            return None
        if address.is_loopback:
            return "a loopback address"
        if address.is_link_local:
            return "a link-local address"
        return _objection_4(address) if isinstance(address, IPv4Address) else _objection_6(address)


def _objection_4(address: IPv4Address) -> str | None:
    refused = not address.is_global or any(address in network for network in _REFUSED_4)
    return "an address that is private or reserved" if refused else None


def _objection_6(address: IPv6Address) -> str | None:
    refused = address not in _GLOBAL_6 or not address.is_global
    if refused or any(address in network for network in _REFUSED_6):
        return "an address that is private, reserved or carries an IPv4 address"
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        return "an address that carries an IPv4 address"
    return None


def _as_address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


class Resolver:
    """The system's name service on threads of its own."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="penstock-names")

    async def lookup(self, host: str, port: int) -> list[str]:
        """Raises `OSError` and `TimeoutError`."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._timeout):
            return await loop.run_in_executor(self._threads, _look_up, host, port)


def _look_up(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(place[0]) for *_, place in found]
