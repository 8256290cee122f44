"""Answers and streams in the encoding that a client asks for, each event as soon as it is there."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from core.http_settings import CompressionSettings
from core.settings import Settings
from tests.platform_fixtures import SimulatedWorker, TestTenant
from tests.raw_call import RawCall

ASK = {"prompt": "Why is the sky blue?", "metadata": {"note": "blue " * 100}}


async def submitted(client: httpx.AsyncClient) -> str:
    job_id: str = (await client.post("/v1/jobs", json=ASK)).raise_for_status().json()["id"]
    return job_id


@pytest.mark.parametrize("encoding", ["br", "gzip", None])
async def test_an_event_is_readable_before_the_next_one_exists(
    encoding: str | None,
    app: FastAPI,
    api_client: httpx.AsyncClient,
    tenant: TestTenant,
    worker: SimulatedWorker,
) -> None:
    job_id = await submitted(api_client)
    await worker.claim(job_id)
    asked = {"Accept-Encoding": encoding} if encoding else {}
    stream = RawCall(app, f"/v1/jobs/{job_id}/events", tenant.headers | asked)

    await stream.until("event: status")
    for index, word in enumerate(("Hel", "lo", ".")):
        worker.events.token(job_id, attempt=1, index=index, text=word)
        await stream.until(f'"text":"{word}"')
    await worker.finish(job_id)
    await stream.until("event: done")
    await stream.ended()

    assert stream.headers.get("content-encoding") == encoding
    assert "Accept-Encoding" in stream.headers["vary"]
    assert all(text.endswith("\n\n") for text in stream.messages if text), "an event was cut in two"


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("br, gzip", "br"),
        ("gzip, deflate", "gzip"),
        ("gzip;q=1, br;q=0", "gzip"),
        ("*", "br"),
        ("identity", None),
        ("zstd", None),
    ],
)
async def test_an_answer_comes_in_an_encoding_that_was_asked_for(
    api_client: httpx.AsyncClient, accepted: str, encoding: str | None
) -> None:
    for _ in range(3):
        await submitted(api_client)

    answer = await api_client.get("/v1/jobs", headers={"Accept-Encoding": accepted})

    assert answer.headers.get("content-encoding") == encoding
    assert len(answer.json()["data"]) == 3
    sent = int(answer.headers["content-length"])
    assert sent < len(answer.content) / 2 if encoding else sent == len(answer.content)


async def test_a_small_answer_and_an_unchanged_one_go_as_they_are(api_client: httpx.AsyncClient) -> None:
    small = await api_client.get("/v1/models", headers={"Accept-Encoding": "br"})
    job = await api_client.get(f"/v1/jobs/{await submitted(api_client)}")
    asked = {"Accept-Encoding": "br", "If-None-Match": job.headers["etag"]}
    unchanged = await api_client.get(job.json()["urls"]["self"], headers=asked)

    assert "content-encoding" not in small.headers
    assert unchanged.status_code == 304
    assert "content-encoding" not in unchanged.headers


async def test_the_lines_of_a_batch_are_compressed_as_they_come(
    app: FastAPI, api_client: httpx.AsyncClient
) -> None:
    async def lines() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b'{"custom_id": "%d"}\n' % number * 1000

    app.add_api_route("/lines", lambda: StreamingResponse(lines(), media_type="application/jsonl"))
    answer = await api_client.get("/lines", headers={"Accept-Encoding": "br"})

    assert answer.headers["content-encoding"] == "br"
    assert len(answer.text.splitlines()) == 3000


class TestWithoutBrotli:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        compression = CompressionSettings(encodings=("gzip",), minimum_size=0)
        api = settings.api.model_copy(update={"compression": compression})
        return settings.model_copy(update={"api": api})

    @pytest.mark.parametrize(("accepted", "encoding"), [("br, gzip", "gzip"), ("br", None)])
    async def test_the_settings_say_which_encodings_there_are_and_from_which_size(
        self, api_client: httpx.AsyncClient, accepted: str, encoding: str | None
    ) -> None:
        answer = await api_client.get("/v1/models", headers={"Accept-Encoding": accepted})

        assert answer.headers.get("content-encoding") == encoding
