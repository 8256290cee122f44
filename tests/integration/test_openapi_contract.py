"""The OpenAPI document against a running server, by a fuzzer: no 5xx, and nothing undeclared."""

import asyncio
import secrets
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as fuzzing
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import open_app
from api.server import Server, make_server
from core.batch_settings import StorageSettings
from core.settings import ApiSettings, BrokerSettings, DatabaseSettings, RedisSettings, Settings
from models.catalogue import Catalogue
from models.dialect import open_database
from models.keys import SCOPES, new_key
from models.repositories import access
from models.repositories.access import TenantRow

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
CASES = 40  # of each operation
# Ready is honest: without a worker it answers 503, and so it is judged elsewhere.
OPERATIONS = [
    ("GET", "/health"),
    ("POST", "/v1/jobs"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name}"),
    ("POST", "/v1/batches"),
    ("GET", "/v1/batches"),
    ("GET", "/v1/batches/{batch_id}"),
    ("POST", "/v1/batches/{batch_id}/cancel"),
    ("GET", "/v1/batches/{batch_id}/output"),
    ("POST", "/v1/batches/{batch_id}/retry_failed"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files"),
    ("GET", "/v1/files/{file_id}"),
    ("GET", "/v1/files/{file_id}/content"),
    ("DELETE", "/v1/files/{file_id}"),
    ("GET", "/v1/jobs"),
    ("POST", "/v1/jobs/bulk"),
    ("GET", "/v1/jobs/{job_id}"),
    ("PATCH", "/v1/jobs/{job_id}"),
    ("DELETE", "/v1/jobs/{job_id}"),
    ("POST", "/v1/jobs/{job_id}/cancel"),
    ("POST", "/v1/jobs/{job_id}/retry"),
    ("POST", "/v1/jobs/{job_id}/feedback"),
    ("GET", "/v1/jobs/{job_id}/events"),
    ("GET", "/v1/jobs/{job_id}/timeline"),
    ("GET", "/v1/admin/dead_letters"),
    ("GET", "/v1/admin/dead_letters/{job_id}"),
    ("POST", "/v1/admin/dead_letters/{job_id}/requeue"),
    ("POST", "/v1/admin/dead_letters/{job_id}/discard"),
    ("GET", "/v1/admin/models"),
    ("POST", "/v1/admin/models/{name}/pause"),
    ("POST", "/v1/admin/models/{name}/drain"),
    ("POST", "/v1/admin/models/{name}/resume"),
    ("GET", "/v1/admin/overview"),
    ("GET", "/v1/admin/report"),
    ("GET", "/v1/admin/jobs"),
    ("GET", "/v1/admin/jobs/{job_id}"),
    ("POST", "/v1/admin/jobs/{job_id}/cancel"),
    ("POST", "/v1/admin/batches/{batch_id}/cancel"),
    ("POST", "/v1/admin/batches/{batch_id}/retry_failed"),
    ("GET", "/v1/usage"),
    ("DELETE", "/v1/admin/answers/{job_id}"),
    ("GET", "/v1/admin/tenants/{tenant_id}/limits"),
    ("PUT", "/v1/admin/tenants/{tenant_id}/limits"),
    ("GET", "/v1/admin/keys/{key_id}/limits"),
    ("PUT", "/v1/admin/keys/{key_id}/limits"),
    ("POST", "/v1/webhook_endpoints"),
    ("GET", "/v1/webhook_endpoints"),
    ("POST", "/v1/webhook_endpoints/default/rotate_secret"),
    ("GET", "/v1/webhook_endpoints/{endpoint_id}"),
    ("PATCH", "/v1/webhook_endpoints/{endpoint_id}"),
    ("DELETE", "/v1/webhook_endpoints/{endpoint_id}"),
    ("POST", "/v1/webhook_endpoints/{endpoint_id}/rotate_secret"),
    ("POST", "/v1/webhook_endpoints/{endpoint_id}/test"),
    ("GET", "/v1/webhook_deliveries"),
    ("GET", "/v1/webhook_deliveries/{delivery_id}"),
    ("POST", "/v1/webhook_deliveries/{delivery_id}/redeliver"),
]


class Running:
    """The API under uvicorn, in a thread, on SQLite and the in-process Redis."""

    def __init__(self, settings: Settings) -> None:
        self._started = threading.Event()
        self._server: Server = make_server(settings, open_app(settings, Catalogue.bundled()))
        self._thread = threading.Thread(target=self._run)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        startup = self._server.startup

        async def announced(sockets: Any = None) -> None:
            await startup(sockets)
            port = self._server.servers[0].sockets[0].getsockname()[1]
            self.url = f"http://127.0.0.1:{port}"
            self._started.set()

        self._server.startup = announced  # type: ignore[method-assign]
        await self._server.serve()


async def _make_key(settings: Settings) -> str:
    database, now = open_database(settings.database), datetime.now(UTC)
    row, clear = new_key("t", "fuzzer", pepper=settings.api.pepper, created_at=now, scopes=SCOPES)
    async with database.begin() as connection:
        await access.add_tenant(connection, TenantRow("t", "t", now))
        await access.add_key(connection, row)
    await database.close()
    return clear


@pytest.fixture(scope="module")
def served(
    migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, str]]]:
    path = tmp_path_factory.mktemp("served") / "penstock.db"
    shutil.copy(migrated_file, path)
    settings = Settings(
        database=DatabaseSettings(url=f"sqlite+aiosqlite:///{path}"),
        redis=RedisSettings(url="memory://"),
        broker=BrokerSettings(namespace=f"t{secrets.token_hex(6)}"),
        api=ApiSettings(port=0),
        storage=StorageSettings(url=str(path.parent / "files")),
    )
    key = asyncio.run(_make_key(settings))
    with Running(settings) as running:
        yield running.url, {"Authorization": f"Bearer {key}"}


def _make_ids(url: str, headers: dict[str, str]) -> dict[str, str]:
    """One of each kind that a path may name."""
    with httpx.Client(base_url=f"{url}/v1", headers=headers) as client:
        job = client.post("/jobs", json={"prompt": "Hi."}).json()["id"]
        known = client.get("/webhook_endpoints").json()[
            "data"
        ]  # a tenant may have 50, and there are more routes
        if not known:
            made = client.post("/webhook_endpoints", json={"url": "https://93.184.216.34/hook"})
            known = [made.json()]
        endpoint = known[0]["id"]
        delivery = client.post(f"/webhook_endpoints/{endpoint}/test").json()["id"]
        form = {"data": {"purpose": "batch"}, "files": {"file": ("in.jsonl", b"{}")}}
        file = client.post("/files", **form).json()["id"]
        asked = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
        batch = client.post("/batches", json=asked).json()["id"]
    return {
        "batch_id": batch,
        "file_id": file,
        "job_id": job,
        "endpoint_id": endpoint,
        "delivery_id": delivery,
    }


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_the_fuzzer_finds_nothing_undeclared(
    served: tuple[str, dict[str, str]], method: str, path: str
) -> None:
    url, headers = served
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    ids = _make_ids(url, headers)

    @fuzzing(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy())
    def fuzz(case: Any) -> None:
        if not path.endswith("/events"):
            for name in set(ids) & set(case.path_parameters or {}):
                case.path_parameters[name] = ids[name]
        case.query = {name: value for name, value in (case.query or {}).items() if name != "wait"}
        case.call_and_validate(base_url=url, headers=headers, checks=CHECKS)

    fuzz()
