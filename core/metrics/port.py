"""The port where Prometheus finds a process's metrics."""

from dataclasses import dataclass
from importlib.metadata import version
from socket import AF_INET, AF_INET6
from threading import Thread
from typing import Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    make_wsgi_app,
)
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.multiprocess import MultiProcessCollector

from core.errors import ConfigurationMistake
from core.metrics import BUILD, REGISTRY
from core.metrics.host import HostCollector
from core.settings import MetricsSettings

UP: Final = "up"  # the process that is all of them


@dataclass(frozen=True, slots=True)
class Port:
    """An open port; `number` is the one that was free where 0 was asked for."""

    number: int
    server: ThreadingWSGIServer
    thread: Thread

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def open_port(settings: MetricsSettings, process: str) -> Port | None:
    """On a thread of its own, so that a slow reader delays nobody; None where the settings name no port.

    Raises `ConfigurationMistake` where the port is taken.
    """
    if settings.port is None:
        return None
    BUILD.labels(version("penstock"), process).set(1)
    registry = _own_registry() if settings.directory is None else _shared_registry(str(settings.directory))
    kind = _SharedServer if settings.directory else _Server
    try:
        server = make_server(settings.host, settings.port, make_wsgi_app(registry), kind, _Quiet)
    except OSError as error:
        raise ConfigurationMistake(
            f"the metrics of this process cannot be shown at {settings.host}:{settings.port} "
            f"({error.strerror}). Set another PENSTOCK_METRICS__PORT for it, or unset it."
        ) from error
    thread = Thread(target=server.serve_forever, name="penstock-metrics", daemon=True)
    thread.start()
    return Port(server.server_port, server, thread)


def _own_registry() -> CollectorRegistry:
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        if not _is_registered(collector):
            collector(registry=REGISTRY)
    if not _is_registered(HostCollector):
        REGISTRY.register(HostCollector())
    return REGISTRY


def _is_registered(kind: type) -> bool:
    return any(isinstance(one, kind) for one in REGISTRY._collector_to_names)  # noqa: SLF001 - it offers no other way


def _shared_registry(directory: str) -> CollectorRegistry:
    """The sums over every process that writes there. What is one process's own is left out."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=directory)  # type: ignore[no-untyped-call]
    registry.register(HostCollector())
    return registry


class _Quiet(WSGIRequestHandler):
    """A scrape every few seconds is no event."""

    def log_message(self, *_: object) -> None: ...


class _Server(ThreadingWSGIServer):
    """Slow readers hold a thread of theirs, and nothing else."""

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        self.address_family = AF_INET6 if ":" in address[0] else AF_INET
        super().__init__(address, handler)


class _SharedServer(_Server):
    """Several processes listen on one port; each of them shows the sums over all."""

    allow_reuse_port = True
