from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from openai import AsyncOpenAI, NotFoundError, UnprocessableEntityError

from core.settings import Settings
from tests.platform_fixtures import TestTenant

LINE = b'{"custom_id": "a"}\n'


@pytest.fixture
def settings(settings: Settings) -> Settings:
    small = settings.storage.model_copy(update={"largest_file": 100_000, "per_tenant": 250_000})
    return settings.model_copy(update={"storage": small})


def openai_client(app: FastAPI, tenant: TestTenant) -> AsyncOpenAI:
    """OpenAI's own client, over the application itself."""
    transport = httpx.ASGITransport(app=app)
    http = httpx.AsyncClient(transport=transport)
    return AsyncOpenAI(
        base_url="http://penstock.test/v1", api_key=tenant.key, http_client=http, max_retries=0
    )


async def upload(client: httpx.AsyncClient, content: bytes = LINE, **fields: Any) -> httpx.Response:
    data = {"purpose": "batch", **fields}
    return await client.post("/v1/files", data=data, files={"file": ("in.jsonl", content)})


def kept(settings: Settings) -> list[str]:
    return sorted(path.name for path in Path(settings.storage.url).iterdir())


async def test_openais_client_uploads_lists_downloads_and_deletes(
    app: FastAPI, tenant: TestTenant, settings: Settings
) -> None:
    client = openai_client(app, tenant)
    file = await client.files.create(file=("in.jsonl", LINE * 3), purpose="batch")

    assert (file.object, file.bytes, file.filename, file.purpose) == ("file", 57, "in.jsonl", "batch")
    assert (await client.files.content(file.id)).content == LINE * 3
    assert (await client.files.retrieve(file.id)) == file
    assert [one.id async for one in client.files.list()] == [file.id]
    assert (await client.files.delete(file.id)).deleted
    with pytest.raises(NotFoundError):
        await client.files.content(file.id)
    assert kept(settings) == []


async def test_openais_client_pages_through_the_list(app: FastAPI, tenant: TestTenant) -> None:
    client = openai_client(app, tenant)
    ids = [(await client.files.create(file=LINE, purpose="batch")).id for _ in range(5)]

    assert [one.id async for one in client.files.list(limit=2)] == ids[::-1]
    assert [one.id async for one in client.files.list(limit=2, order="asc")] == ids


async def test_a_lifetime_is_kept(app: FastAPI, tenant: TestTenant) -> None:
    client = openai_client(app, tenant)
    lifetime: Any = {"anchor": "created_at", "seconds": 7200}
    file = await client.files.create(file=LINE, purpose="batch", expires_after=lifetime)

    assert file.expires_at == file.created_at + 7200


async def test_another_purpose_is_refused_and_nothing_is_kept(
    app: FastAPI, tenant: TestTenant, settings: Settings
) -> None:
    with pytest.raises(UnprocessableEntityError, match="purpose"):
        await openai_client(app, tenant).files.create(file=LINE, purpose="vision")

    assert kept(settings) == []


async def test_a_file_beyond_the_limit_is_refused_and_nothing_is_kept(
    api_client: httpx.AsyncClient, settings: Settings
) -> None:
    answer = await upload(api_client, b"x" * 100_001)

    assert answer.status_code == 413
    assert "100000 bytes" in answer.json()["detail"]
    assert kept(settings) == []


async def test_files_beyond_what_a_tenant_may_keep_are_refused_until_one_is_deleted(
    api_client: httpx.AsyncClient,
) -> None:
    first = (await upload(api_client, b"x" * 99_000)).json()
    await upload(api_client, b"x" * 99_000)
    refused = await upload(api_client, b"x" * 99_000)
    await api_client.delete(f"/v1/files/{first['id']}")
    again = await upload(api_client, b"x" * 99_000)

    assert (refused.status_code, refused.json()["code"]) == (413, "storage_full")
    assert again.status_code == 200


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{}", 400),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Dispo", 400),
        ("multipart/form-data; boundary=x", b"what is this", 400),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
        ("multipart/form-data", b"--x--\r\n", 400),
    ],
)
async def test_what_is_no_form_is_refused(
    api_client: httpx.AsyncClient, settings: Settings, content_type: str, body: bytes, status: int
) -> None:
    answer = await api_client.post("/v1/files", content=body, headers={"Content-Type": content_type})

    assert answer.status_code == status
    assert kept(settings) == []


async def test_another_tenants_file_is_not_found(
    api_client: httpx.AsyncClient, other_tenant: TestTenant
) -> None:
    file_id = (await upload(api_client)).json()["id"]

    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = await api_client.request(method, f"/v1/files/{file_id}{path}", headers=other_tenant.headers)
        assert answer.status_code == 404
