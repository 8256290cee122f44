"""Requests that nobody waits for any more are named to SGLang, whatever else tells it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from core.errors import EngineUnavailable
from models.catalogue import SGLangModel
from tests.contracts.engine_contract import answer, chat, until
from tests.contracts.test_openai_stream import DONE, END, TOKEN, USAGE
from workers.engines.sglang_aborts import Aborts
from workers.engines.sglang_engine import SGLangEngine


class Server:
    """Answers the prompt `short` and never ends another."""

    def __init__(self) -> None:
        self.aborted: list[str] = []

    async def start(self) -> str:
        app = web.Application()
        app.router.add_get("/health", self._healthy)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/abort_request", self._abort)
        self._runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _abort(self, request: web.Request) -> web.Response:
        self.aborted.append((await request.json())["rid"])
        return web.Response()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        messages = (await request.json())["messages"]
        if messages[0]["content"] == "bad":
            return web.json_response({"message": "no"}, status=400)
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(TOKEN)
        if messages[0]["content"] == "short":
            await response.write(END + USAGE + DONE)
            return response
        await asyncio.Event().wait()
        return response


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    yield server
    await server.stop()


@pytest.fixture
async def engine(server: Server) -> AsyncIterator[SGLangEngine]:
    entry = SGLangModel.model_validate({"name": "m", "engine": "sglang", "url": await server.start()})
    engine = SGLangEngine(entry)
    await engine.start()
    yield engine
    await engine.close()


async def test_whoever_leaves_early_is_named_and_whoever_was_answered_is_not(
    server: Server, engine: SGLangEngine
) -> None:
    await answer(engine, chat("answered", "short"))
    closed = engine.generate(chat("closed", "long"))
    await anext(closed)
    cancelled = asyncio.create_task(answer(engine, chat("cancelled", "long")))
    aborted = engine.generate(chat("aborted", "long"))
    await anext(aborted)

    await closed.aclose()
    await asyncio.sleep(0)
    cancelled.cancel()
    await engine.abort("aborted")
    last = [delta async for delta in aborted][-1]

    assert last.finish_reason == "abort"
    await until(lambda: len(server.aborted) == 3)
    assert sorted(server.aborted) == ["aborted", "cancelled", "closed"]


async def test_a_request_that_was_refused_is_not_named(server: Server, engine: SGLangEngine) -> None:
    with pytest.raises(Exception, match="no"):
        await answer(engine, chat("refused", "bad"))
    stream = engine.generate(chat("left", "long"))
    await anext(stream)
    await stream.aclose()

    await until(lambda: server.aborted == ["left"])


async def test_many_are_named_a_few_at_a_time() -> None:
    said: list[str] = []
    most = now = 0

    async def say(request_id: str) -> None:
        nonlocal most, now
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        said.append(request_id)

    aborts = Aborts(say)
    for number in range(100):
        aborts.note(f"r{number}")
    await until(lambda: len(said) == 100)

    assert 1 < most <= 4
    await aborts.close()


async def test_a_server_that_is_gone_is_told_nothing_more() -> None:
    asked: list[str] = []

    async def say(request_id: str) -> None:
        asked.append(request_id)
        raise EngineUnavailable("gone")

    aborts = Aborts(say)
    for number in range(100):
        aborts.note(f"r{number}")
    await asyncio.sleep(0)
    await aborts.close()

    assert len(asked) <= 4
