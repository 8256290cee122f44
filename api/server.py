"""Runs the application under uvicorn, and lets it go gracefully."""

import asyncio
import signal
from socket import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from api.app import open_app
from api.dependencies import with_catalogue
from core.collector import spare_long_lived
from core.errors import ConfigurationMistake
from core.logs import configure_logs, get_logger
from core.metrics import Process
from core.metrics.port import open_port
from core.settings import Settings
from core.tracing import start_tracing
from models.catalogue import find_catalogue, reread_catalogue

logger = get_logger(__name__)


class Server(uvicorn.Server):
    """Tells waiting requests that the process drains, so that they answer before they are cut off."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        # uvicorn would raise the signal again at its end, and a process that ended well would look killed.
        self._captured_signals.clear()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        app: FastAPI = self.config.app  # type: ignore[assignment]
        await app.state.parts.overviews.feed.close()
        await app.state.parts.reader.drain()
        await super().shutdown(sockets)


def make_server(settings: Settings, app: FastAPI) -> Server:
    """For a process that runs more than the API: it awaits `serve()` of what this returns."""
    return Server(
        uvicorn.Config(
            app,
            host=settings.api.host,
            port=settings.api.port,
            loop="uvloop",
            http="httptools",
            ws="none",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=True,
            forwarded_allow_ips=list(settings.api.trusted_proxies),
            timeout_keep_alive=int(settings.api.keep_alive.total_seconds()),
            timeout_graceful_shutdown=int(settings.api.drain.total_seconds()),
        )
    )


def serve(settings: Settings) -> None:
    """Returns after SIGTERM or SIGINT, when requests have ended or `api.drain` has passed."""
    configure_logs(settings.log)
    open_port(settings.metrics, Process.API)
    start_tracing(settings.tracing, Process.API)
    app = open_app(settings, find_catalogue(settings))
    server = make_server(settings, app)
    spare_long_lived()
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.get_loop().add_signal_handler(signal.SIGHUP, _reread, app, settings)
        runner.run(server.serve())


def _reread(app: FastAPI, settings: Settings) -> None:
    """Requests that come from now on see the new catalogue; those under way keep what they saw."""
    catalogue = reread_catalogue(settings)
    if catalogue is None:
        return
    try:
        app.state.parts = with_catalogue(app.state.parts, catalogue)
    except ConfigurationMistake as mistake:
        logger.error("templates_refused", reason=str(mistake))  # noqa: TRY400 - the reason says it all
