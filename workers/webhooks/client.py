"""The HTTP client of webhooks: dials only addresses that passed, follows nothing, reads little."""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpcore

from core.settings import WebhookSettings
from queues.targets import Target, Targets

_MOST_READ: Final = 65_536
_IDLE: Final = 30.0  # seconds that an idle connection is kept
_IDLE_CONNECTIONS: Final = 64


@dataclass(frozen=True, slots=True)
class Reply:
    status_code: int
    retry_after: str | None


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Every connection passes here: the name is resolved once, judged, and its literal address dialled.

    TLS still greets and verifies the name, which httpcore keeps apart from the address.
    """

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - httpcore has none to give
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                return await self._first(await self._targets.addresses(host, port), port, local_address)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout("not connected in time") from error
        except OSError as error:
            raise httpcore.ConnectError(type(error).__name__) from error

    async def _first(
        self, addresses: list[str], port: int, local_address: str | None
    ) -> httpcore.AsyncNetworkStream:
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(address, port, local_address=local_address)
            except httpcore.ConnectError:
                continue
        return await self._network.connect_tcp(addresses[-1], port, local_address=local_address)


class WebhookClient:
    """One pool of connections. httpcore itself knows no proxies, no redirects and no decompression."""

    def __init__(self, settings: WebhookSettings, targets: Targets) -> None:
        self._total = settings.timeout.total_seconds()
        self._timeouts = {
            "connect": settings.connect_timeout.total_seconds(),
            "read": self._total,
            "write": self._total,
            "pool": self._total,
        }
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=settings.slots + _IDLE_CONNECTIONS,
            max_keepalive_connections=_IDLE_CONNECTIONS,
            keepalive_expiry=_IDLE,
            network_backend=CheckedBackend(targets),
        )

    async def post(self, target: Target, body: bytes, headers: Mapping[str, str]) -> Reply:
        """Raises `TargetRefused`, `TimeoutError` and httpcore's errors."""
        url = httpcore.URL(
            scheme=target.scheme.encode(),
            host=target.host.encode(),
            port=target.port,
            target=target.path.encode(),
        )
        named = [("Host", target.authority), ("Content-Length", str(len(body))), *headers.items()]
        async with (
            asyncio.timeout(self._total),
            self._pool.stream(
                "POST", url, headers=named, content=body, extensions={"timeout": self._timeouts}
            ) as answer,
        ):
            await _read_some(answer)
            return Reply(answer.status, _header(answer, b"retry-after"))

    async def close(self) -> None:
        await self._pool.aclose()


async def _read_some(answer: httpcore.Response) -> None:
    """To the end of a short answer, so that the connection can be used again; a long one is cut off."""
    read = 0
    async for chunk in answer.aiter_stream():
        read += len(chunk)
        if read > _MOST_READ:
            return


def _header(answer: httpcore.Response, name: bytes) -> str | None:
    values = [value for key, value in answer.headers if key.lower() == name]
    return values[0].decode("latin-1") if values else None
