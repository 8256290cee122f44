"""The API with everything behind it: embedded (SQLite, in-process Redis) and on the real services."""

import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic import command
from alembic.config import Config
from asgi_lifespan import LifespanManager
from fastapi import FastAPI
from redis.asyncio import Redis
from sqlalchemy import text

from api.app import create_app
from core.batch_settings import StorageSettings
from core.settings import (
    ApiSettings,
    BrokerSettings,
    DatabaseSettings,
    RedisSettings,
    Settings,
    WorkerSettings,
)
from models.catalogue import Catalogue
from models.dialect import Database, open_database
from models.keys import ADMIN, JOBS, new_key
from models.lifecycle import Status
from models.repositories import access, execution, fleet, jobs
from models.repositories.access import TenantRow
from models.repositories.execution import Ending
from models.service_class import ServiceClass
from models.tables import Base
from models.views import JobView
from queues.event_writer import EventWriter
from queues.redis import open_redis
from tests.services import Services

PROFILES = [pytest.param("embedded", id="embedded"), pytest.param("services", marks=pytest.mark.services)]


def migrate(url: str) -> None:
    config = Config()
    config.set_main_option("script_location", "migrations")
    config.attributes["database"] = DatabaseSettings(url=url)
    command.upgrade(config, "head")


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("migrated") / "penstock.db"
    migrate(f"sqlite+aiosqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(services: Services) -> str:
    migrate(services.database_url)
    return services.database_url


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def settings(profile: str, request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if profile == "embedded":
        copy = tmp_path / "penstock.db"
        shutil.copy(request.getfixturevalue("migrated_file"), copy)
        database, redis = f"sqlite+aiosqlite:///{copy}", "memory://"
    else:
        database = request.getfixturevalue("migrated_postgres")
        redis = request.getfixturevalue("services").redis_url
    return Settings(
        database=DatabaseSettings(url=database),
        redis=RedisSettings(url=redis),
        broker=BrokerSettings(namespace=f"t{secrets.token_hex(6)}"),
        worker=WorkerSettings(event_flush=timedelta(milliseconds=1)),
        api=ApiSettings(public_url="http://penstock.test"),
        storage=StorageSettings(url=str(tmp_path / "files")),
    )


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    opened = open_database(settings.database)
    if not opened.is_sqlite:
        tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
        async with opened.begin() as connection:
            await connection.execute(text(f"TRUNCATE {tables} CASCADE"))
    yield opened
    await opened.close()


@pytest.fixture
async def redis(settings: Settings) -> AsyncIterator[Redis]:
    client = open_redis(settings.redis, settings.broker.namespace)
    yield client
    keys = [key async for key in client.scan_iter(f"{settings.broker.namespace}:*")]
    if keys:
        await client.delete(*keys)
    await client.aclose(close_connection_pool=True)


@dataclass(frozen=True, slots=True)
class TestTenant:
    __test__ = False

    id: str
    key: str
    headers: dict[str, str]


async def make_tenant(
    database: Database,
    settings: Settings,
    *,
    scopes: tuple[str, ...] = (JOBS,),
    max_class: ServiceClass = ServiceClass.PREMIUM,
) -> TestTenant:
    now, name = datetime.now(UTC), f"tenant-{secrets.token_hex(4)}"
    row, clear = new_key(
        name, "test", pepper=settings.api.pepper, created_at=now, scopes=scopes, max_class=max_class
    )
    async with database.begin() as connection:
        await access.add_tenant(connection, TenantRow(name, name, now))
        await access.add_key(connection, row)
    return TestTenant(name, clear, {"Authorization": f"Bearer {clear}"})


@pytest.fixture
async def tenant(database: Database, settings: Settings) -> TestTenant:
    return await make_tenant(database, settings, scopes=(JOBS, ADMIN))


@pytest.fixture
async def other_tenant(database: Database, settings: Settings) -> TestTenant:
    return await make_tenant(database, settings)


@pytest.fixture
async def app(settings: Settings, database: Database, redis: Redis) -> AsyncIterator[FastAPI]:
    made = create_app(settings, database=database, redis=redis, catalogue=Catalogue.bundled())
    async with LifespanManager(made):
        yield made


@pytest.fixture
async def api_client(app: FastAPI, tenant: TestTenant) -> AsyncIterator[httpx.AsyncClient]:
    """Speaks for `tenant`; every answer is held against the OpenAPI document."""
    async with client_of(app, tenant.headers) as client:
        yield client


def client_of(app: FastAPI, headers: dict[str, str]) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url="http://penstock.test",
        headers=headers,
        event_hooks={"response": [_declared(app)]},
    )


_OUR_HEADERS = {
    "x-request-id", "x-job-id", "x-degradation-level", "etag", "location", "retry-after",
    "preference-applied", "idempotency-replayed", "www-authenticate",
    "x-request-complexity-applied", "ratelimit-policy", "ratelimit", "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens",
}  # fmt: skip


def _declared(app: FastAPI) -> Callable[[httpx.Response], Awaitable[None]]:
    document = app.openapi()

    async def check(response: httpx.Response) -> None:
        operation = _operation(document, response.request)
        if operation is None:
            return
        declared = operation["responses"].get(str(response.status_code))
        assert declared, f"{response.request.method} {response.request.url.path}: {response.status_code}"
        sent = {name for name in response.headers if name in _OUR_HEADERS}
        allowed = {name.lower(): header for name, header in declared["headers"].items()}
        assert sent <= allowed.keys(), sent - allowed.keys()
        assert {name for name, header in allowed.items() if header["required"]} <= sent
        if "content" in declared:
            assert response.headers["content-type"].split(";")[0] in declared["content"]

    return check


def _operation(document: dict[str, Any], request: httpx.Request) -> dict[str, Any] | None:
    parts = request.url.path.split("/")
    paths = sorted(document["paths"], key=lambda path: "{" in path)
    for path in paths:
        wanted = path.split("/")
        same = len(wanted) == len(parts) and all(
            w == p or w.startswith("{") for w, p in zip(wanted, parts, strict=True)
        )
        if same and request.method.lower() in document["paths"][path]:
            found: dict[str, Any] = document["paths"][path][request.method.lower()]
            return found
    return None


class SimulatedWorker:
    """Does in the tables and in Redis what a worker does, one job at a time."""

    def __init__(self, database: Database, events: EventWriter) -> None:
        self.database = database
        self.events = events

    async def sign_on(self) -> None:
        async with self.database.begin() as connection:
            await fleet.report(
                self.database, connection, name="w1", slots={"default": 1}, held={}, state="ready"
            )

    async def claim(self, job_id: str) -> execution.Claim:
        async with self.database.begin() as connection:
            claims = await execution.claim(connection, [(job_id, 0)], worker="w1", lease=timedelta(minutes=1))
        return claims[0]

    async def finish(self, job_id: str, *, text: str = "Hello.", tell: bool = True, **output: Any) -> JobView:
        """Ends what this worker claimed; `output` is further fields of the answer."""
        ending = Ending(
            job_id,
            attempt=1,
            status=Status.COMPLETED,
            expires_at=datetime.now(UTC) + timedelta(days=1),
            output={"text": text, "reasoning": None, "finish_reason": "stop", **output},
            usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            timings={"queue_ms": 1.0, "first_token_ms": 2.0, "run_ms": 3.0},
        )
        async with self.database.begin() as connection:
            assert await execution.settle(connection, [ending])
            row = await jobs.read(connection, await self._tenant(connection, job_id), job_id)
        assert row is not None
        if tell:
            self.events.finished(row)
        return row

    async def run(self, job_id: str, *, text: str = "Hello.", tell: bool = True, **output: Any) -> JobView:
        await self.claim(job_id)
        return await self.finish(job_id, text=text, tell=tell, **output)

    async def _tenant(self, connection: Any, job_id: str) -> str:
        found = await connection.execute(text("SELECT tenant_id FROM jobs WHERE id = :id"), {"id": job_id})
        tenant_id: str = found.scalar_one()
        return tenant_id


@pytest.fixture
async def worker(settings: Settings, database: Database, redis: Redis) -> AsyncIterator[SimulatedWorker]:
    events = EventWriter(
        redis,
        namespace=settings.broker.namespace,
        settings=settings.redis,
        flush_every=settings.worker.event_flush,
    )
    await events.start()
    yield SimulatedWorker(database, events)
    await events.close()


def parsed_events(body: str) -> Iterator[dict[str, str]]:
    """Server-sent events as dictionaries of their fields; comments are left out."""
    for block in body.split("\n\n"):
        fields = [line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":")]
        if fields:
            yield dict(fields)  # type: ignore[arg-type]
