"""What `penstock doctor` looks at: each dependency, in the order in which they are needed."""

import asyncio
import importlib.util
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx
from kombu.connection import Connection
from redis.exceptions import RedisError
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from cli.schema import plain_refusals, refuse_missing_folder
from core.errors import ConfigurationMistake, StorageUnavailable, StoreUnavailable
from core.ids import new_id
from core.settings import Settings, load_settings
from models.catalogue import Catalogue, find_catalogue
from models.dialect import open_database
from models.repositories import fleet
from models.repositories.schema import applied_revision, is_behind, known_revisions
from queues.embedded_broker import register
from queues.redis import open_redis
from queues.storage import open_storage
from queues.topology import Topology

_EMBEDDED: Final = "in-process; nothing to reach"
_API_PATIENCE: Final = 3.0


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    ok: bool
    found: str
    remedy: str = ""


async def run_checks() -> list[Check]:
    try:
        settings = load_settings()
    except ConfigurationMistake as mistake:
        return [Check("settings", ok=False, found=str(mistake), remedy="Correct the environment.")]
    checks = [Check("settings", ok=True, found="every PENSTOCK_ name is known")]
    catalogue, check = _catalogue(settings)
    checks.append(check)
    checks += [check async for check in _database(settings)]
    checks.append(await _redis(settings))
    checks.append(await _storage(settings))
    checks += await asyncio.to_thread(lambda: list(_broker(settings, catalogue)))
    checks += list(_engines(catalogue))
    checks.append(await _api(settings))
    return checks


def _catalogue(settings: Settings) -> tuple[Catalogue | None, Check]:
    try:
        catalogue = find_catalogue(settings)
    except ConfigurationMistake as mistake:
        return None, Check("catalogue", ok=False, found=str(mistake), remedy="Correct the file.")
    missing = [
        f"{model.name}: {path}"
        for model in catalogue.models
        for path in (getattr(model, "path", None), model.tokenizer)
        if path is not None and not path.exists()
    ]
    if missing:
        return catalogue, Check(
            "catalogue", ok=False, found=f"no such file: {'; '.join(missing)}", remedy="Correct the path."
        )
    return catalogue, Check("catalogue", ok=True, found=f"serves {', '.join(catalogue.names)}")


async def _storage(settings: Settings) -> Check:
    """Writes an object and removes it: to read alone would be no sign that batches can end."""
    where, name = settings.storage.url, new_id("probe")

    async def nothing() -> AsyncIterator[bytes]:
        yield b"penstock doctor"

    try:
        storage = open_storage(settings.storage)
        await storage.write(name, nothing())
        await storage.remove(name)
    except (ConfigurationMistake, StorageUnavailable, OSError) as error:
        remedy = "Make it writable for API and upkeep, or correct PENSTOCK_STORAGE__URL."
        return Check("storage", ok=False, found=f"{where}: {_first_line(error)}", remedy=remedy)
    return Check("storage", ok=True, found=where)


async def _database(settings: Settings) -> AsyncIterator[Check]:
    where = make_url(settings.database.url).render_as_string(hide_password=True)
    remedy = "Start it, or correct PENSTOCK_DATABASE__URL."
    database = open_database(settings.database)
    try:
        refuse_missing_folder(settings.database)
        with plain_refusals():
            async with database.read() as connection:
                yield Check("database", ok=True, found=where)
                async for check in _schema(connection, settings):
                    yield check
    except (ConfigurationMistake, StoreUnavailable) as error:
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
        yield Check("database", ok=False, found=f"{where}: {_first_line(cause)}", remedy=remedy)
    finally:
        await database.close()


async def _schema(connection: AsyncConnection, settings: Settings) -> AsyncIterator[Check]:
    current, known = await applied_revision(connection), known_revisions()
    found = f"at {current or 'no migration'}, this version needs {known[-1]}"
    is_old = is_behind(current, known)
    yield Check("migrations", ok=not is_old, found=found, remedy="Run `penstock migrate`.")
    if not is_old:
        # Three heartbeats: one may be late.
        workers = await fleet.alive(connection, within=3 * settings.worker.heartbeat)
        names = ", ".join(worker.name for worker in workers) or "none alive"
        yield Check("workers", ok=bool(workers), found=names, remedy="Start `penstock worker`.")


async def _redis(settings: Settings) -> Check:
    url = settings.redis.url
    if url.startswith("memory://"):
        return Check("redis", ok=True, found=_EMBEDDED)
    client = open_redis(settings.redis, settings.broker.namespace)
    try:
        await client.ping()
    except (RedisError, OSError, TimeoutError) as error:
        remedy = "Start it, or correct PENSTOCK_REDIS__URL. Jobs run without it; tokens do not stream."
        return Check("redis", ok=False, found=_first_line(error), remedy=remedy)
    finally:
        await client.aclose()
    return Check("redis", ok=True, found=url.rpartition("@")[2])


def _broker(settings: Settings, catalogue: Catalogue | None) -> Iterator[Check]:
    register()
    url = settings.broker.url.get_secret_value()
    if not url.startswith(("amqp", "pyamqp")):
        yield Check("broker", ok=True, found=_EMBEDDED)
        return
    try:
        with _connection(settings) as connection:
            connection.connect()
            yield Check("broker", ok=True, found=connection.as_uri())
            if catalogue is not None:
                yield _queues(connection, settings, catalogue)
    except OSError as error:
        remedy = "Start it, or correct PENSTOCK_BROKER__URL."
        yield Check("broker", ok=False, found=_first_line(error), remedy=remedy)


def _connection(settings: Settings) -> Any:
    patience = settings.broker.connect_timeout.total_seconds()
    url = settings.broker.url.get_secret_value()
    return Connection(url, connect_timeout=patience)  # type: ignore[no-untyped-call]


def _queues(connection: Any, settings: Settings, catalogue: Catalogue) -> Check:
    """Passive: looks, and declares nothing."""
    topology = Topology(settings.broker)
    names = [topology.queue_name(*pair) for pair in topology.pairs(catalogue.names)]
    missing = [name for name in names if not _exists(connection, name)]
    found = f"missing: {', '.join(missing)}" if missing else f"{len(names)} queues"
    return Check("queues", ok=not missing, found=found, remedy="Start `penstock relay`: it declares them.")


def _exists(connection: Any, queue: str) -> bool:
    # A channel of its own for each: a passive declare of what is not there closes it.
    with connection.channel() as channel:
        try:
            channel.queue_declare(queue, passive=True)
        except connection.channel_errors:
            return False
    return True


def _engines(catalogue: Catalogue | None) -> Iterator[Check]:
    kinds = {model.engine for model in catalogue.models} if catalogue else set()
    if "llamacpp" in kinds:
        found = importlib.util.find_spec("xllamacpp") is not None
        yield Check(
            "engine llamacpp",
            ok=found,
            found="the package xllamacpp is installed" if found else "no package xllamacpp",
            remedy="Install it: `pip install -c constraints.txt xllamacpp`.",
        )
    # A fact and not a fault: the bundled model needs no GPU, and a remote engine has its own.
    yield Check("gpu", ok=True, found="nvidia-smi found" if shutil.which("nvidia-smi") else "none; CPU only")


async def _api(settings: Settings) -> Check:
    remedy = "Start `penstock up` or `penstock api`, or correct PENSTOCK_URL."
    try:
        async with httpx.AsyncClient(base_url=settings.url, timeout=_API_PATIENCE) as http:
            ready = await http.get("/ready")
    except httpx.TransportError as error:
        found = f"no answer at {settings.url}: {_first_line(error)}"
        return Check("api", ok=False, found=found, remedy=remedy)
    if ready.is_error:
        found = f"{settings.url}/ready says {ready.status_code}: {ready.text[:200]}"
        return Check("api", ok=False, found=found, remedy="Mend what it names.")
    return Check("api", ok=True, found=f"{settings.url} is ready")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0] or type(error).__name__
