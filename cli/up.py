"""`penstock up`: the embedded profile, every part in one process on SQLite, without Redis or RabbitMQ."""

import asyncio
import os
import signal
import socket
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import typer
from fastapi import FastAPI
from pydantic import SecretStr

from api.app import create_app
from api.server import make_server
from cli.schema import upgrade
from core.errors import ConfigurationMistake
from core.ids import new_id
from core.logs import configure_logs, get_logger
from core.metrics.port import UP, open_port
from core.settings import Settings, load_settings
from core.tracing import start_tracing
from models.catalogue import Catalogue, find_catalogue
from models.dialect import Database, open_database
from models.keys import SCOPES, new_key
from models.repositories import access, execution, fleet, outbox, webhook_deliveries
from models.repositories.access import TenantRow
from queues.batches.desk import BatchDesk
from queues.event_writer import EventWriter
from queues.observer import Observer
from queues.overload import Overload
from queues.publisher import open_publisher
from queues.redis import open_redis
from queues.relay import BELL, Relay
from queues.storage import open_storage
from queues.upkeep import Upkeep
from queues.webhook_relay import WebhookRelay
from workers.app import chosen_models, compose, worker_name
from workers.embedded import EmbeddedWorker

logger = get_logger(__name__)

_TENANT: Final = "development"
_GRACE: Final = timedelta(seconds=10)
_LOOK: Final = 0.05  # seconds between looks at a starting server


def run_up(*, port: int, data_dir: Path) -> None:
    """Until SIGINT or SIGTERM. Raises `ConfigurationMistake` before anything is started."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigurationMistake(
            f"cannot create {data_dir} ({error.strerror}); choose another folder with --data-dir"
        ) from error
    settings = embedded_settings(port=port, data_dir=data_dir)
    configure_logs(settings.log)
    open_port(settings.metrics, UP)
    start_tracing(settings.tracing, UP)
    catalogue = find_catalogue(settings)
    listener = _listen(settings.api.host, port)
    upgrade(settings.database)
    asyncio.run(_up(settings, catalogue, listener, data_dir))


def embedded_settings(*, port: int, data_dir: Path) -> Settings:
    """The environment's settings, with what makes the profile embedded."""
    return load_settings(
        database={"url": f"sqlite+aiosqlite:///{data_dir.resolve() / 'penstock.db'}"},
        redis={"url": "memory://"},
        broker={"url": SecretStr("memory-priority://")},
        api={"port": port},
        storage={"url": str(data_dir.resolve() / "files")},
        worker={"grace": _GRACE},
    )


def _listen(host: str, port: int) -> socket.socket:
    """Bound before anything starts, so that a taken port is the first thing said."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationMistake(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another with --port; 0 takes any"
        ) from error
    return listener


async def _up(settings: Settings, catalogue: Catalogue, listener: socket.socket, data_dir: Path) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        database = open_database(settings.database)
        stack.push_async_callback(database.close)
        redis = open_redis(settings.redis, settings.broker.namespace)
        stack.push_async_callback(redis.aclose)
        await _recover(database, settings)
        key = await _development_key(database, settings, data_dir)
        publisher = open_publisher(settings.broker, catalogue.names)
        stack.push_async_callback(publisher.close)
        await _run_in(stack, Relay(database, publisher, redis, settings).run())
        await _run_in(stack, WebhookRelay(database, publisher, settings).run())
        events = EventWriter.of(redis, settings)
        await events.start()
        stack.push_async_callback(events.close)
        names = list(catalogue.names)
        observer = Observer(database, redis, settings, names, publisher=publisher)
        overload = Overload(database, redis, settings, names)
        upkeep = Upkeep(
            database, publisher, settings, names, events=events, observer=observer, overload=overload
        )
        await _run_in(stack, upkeep.run())
        desk = BatchDesk(database, redis, open_storage(settings.storage), settings, catalogue)
        await _run_in(stack, desk.run())
        await _work(stack, settings, catalogue)
        app = create_app(settings, database=database, redis=redis, catalogue=catalogue)
        await _serve(stack, app, settings, listener)
        host, port = listener.getsockname()
        typer.echo(f"Penstock is ready at http://{host}:{port}")
        typer.echo(f"Development key: {key}")
        typer.echo(f"Console: http://{host}:{port}/console takes that key")
        await stop.wait()
        typer.echo("Penstock is stopping: running jobs finish, the others stay queued", err=True)


async def _recover(database: Database, settings: Settings) -> None:
    """The in-process broker and worker died with the last process; the database has what they held."""
    async with database.begin() as connection:
        await outbox.take_back_all(connection)
        await execution.void_leases(connection)
        await webhook_deliveries.put_back_all(connection)
        await fleet.forget_silent(connection, after=timedelta(0))
    await database.wakeups.ring(BELL)
    logger.debug("recovered", database=settings.database.url)


async def _development_key(database: Database, settings: Settings, data_dir: Path) -> str:
    """The key of PENSTOCK_BOOTSTRAP_KEY, or one that is kept in the data directory for the next start."""
    now = datetime.now(UTC)
    kept = data_dir / "development-key"
    text = settings.bootstrap_key.get_secret_value() if settings.bootstrap_key else None
    if text is None and kept.exists():
        text = kept.read_text(encoding="utf-8").strip()
    async with database.begin() as connection:
        tenant = await access.find_tenant(connection, _TENANT)
        if tenant is None:
            tenant = TenantRow(new_id("ten"), _TENANT, now)
            await access.add_tenant(connection, tenant)
        row, text = new_key(
            tenant.id,
            _TENANT,
            pepper=settings.api.pepper,
            created_at=now,
            scopes=SCOPES,
            clear_text=text,
        )
        await access.put_key(database, connection, row)
    if settings.bootstrap_key is None:
        _keep(kept, text)
    return text


def _keep(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")


async def _run_in(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)


async def _work(stack: AsyncExitStack, settings: Settings, catalogue: Catalogue) -> None:
    worker = EmbeddedWorker(
        compose(settings, catalogue, webhooks=True),
        hostname=worker_name(),
        concurrency=sum(model.slots for model in chosen_models(settings, catalogue)),
    )
    await asyncio.to_thread(worker.start)
    stack.push_async_callback(asyncio.to_thread, worker.stop, _GRACE)


async def _serve(stack: AsyncExitStack, app: FastAPI, settings: Settings, listener: socket.socket) -> None:
    """Uvicorn without its signal handlers: this process stops its parts in its own order."""
    server = make_server(settings, app)
    serving = asyncio.create_task(server._serve([listener]))  # noqa: SLF001 - serve() takes over the signals

    async def end() -> None:
        server.should_exit = True
        await serving

    stack.push_async_callback(end)
    while not server.started:
        if serving.done():
            await serving
        await asyncio.sleep(_LOOK)
