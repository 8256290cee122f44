"""Real SGLang on the CPU: the engine contract, and what only this engine does."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
import pytest_asyncio

from core.errors import EngineUnavailable
from models.catalogue import BUNDLED_FOLDER, SGLangModel
from tests.contracts.engine_contract import CONTEXT_LENGTH, BusySlots, answer, chat, endless, until
from tests.contracts.test_engines import RealEngineContract
from workers.engines.openai_stream import OpenAIStream
from workers.engines.protocol import Engine, EngineState, Prompt, Sampling
from workers.engines.request_body import Dialect
from workers.engines.sglang_engine import SGLangEngine
from workers.engines.supervisor import Restarts

PYTHON = Path(SGLangModel.model_fields["python"].default)
QUICK = Restarts(first_delay=timedelta(milliseconds=10), stop_within=timedelta(seconds=5))
# Two slots, as the contract's: more requests than slots then wait in SGLang.
TINY = SGLangModel.model_validate(
    {
        "name": "default",
        "engine": "sglang",
        "path": str(BUNDLED_FOLDER / "hf"),
        "device": "cpu",
        "slots": 2,
        "context_length": CONTEXT_LENGTH,
        "kv_tokens": 16384,
        "memory_fraction": 0.3,
    }
)
pytestmark = [
    pytest.mark.sglang,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not PYTHON.is_file(), reason="no environment with SGLang: make sglang-env"),
]
on_one_loop = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sglang() -> AsyncIterator[SGLangEngine]:
    engine = SGLangEngine(TINY, restarts=QUICK)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


@on_one_loop
class TestSGLang(RealEngineContract):
    @pytest.fixture
    def engine(self, sglang: SGLangEngine) -> Engine:
        return sglang

    @pytest.fixture
    def busy_slots(self, sglang: SGLangEngine) -> BusySlots:
        async def busy() -> int:
            asking = OpenAIStream(sglang.endpoint, Dialect("default"))
            asking.open()
            try:
                _, body = await asking.get("v1/loads")
            finally:
                await asking.close()
            loads = orjson.loads(body)["loads"]
            return sum(load["num_running_reqs"] for load in loads)

        return busy

    async def test_a_schema_shapes_the_answer(self, engine: Engine) -> None:
        shape = {"type": "json_schema", "json_schema": {"name": "c", "schema": {"enum": ["red", "blue"]}}}
        sampling = Sampling(max_tokens=64, temperature=0, response_format=shape)

        chatted = await answer(engine, chat("chat-schema", response_format=shape))
        completed = await answer(engine, Prompt("raw-schema", text="Colour:", sampling=sampling))

        for deltas in (chatted, completed):
            assert orjson.loads("".join(d.text for d in deltas)) in {"red", "blue"}

    async def test_different_salts_share_no_prefix(self, engine: Engine) -> None:
        text = "Invoices are sent on the first day of the month. " * 8
        sampling = Sampling(max_tokens=2)

        await answer(engine, Prompt("salt-a", text=text, sampling=sampling, cache_salt="a"))
        same = await answer(engine, Prompt("salt-a2", text=text, sampling=sampling, cache_salt="a"))
        other = await answer(engine, Prompt("salt-b", text=text, sampling=sampling, cache_salt="b"))

        assert same[-1].usage is not None
        assert other[-1].usage is not None
        assert same[-1].usage.cached_tokens > 0
        assert other[-1].usage.cached_tokens == 0

    async def test_an_attached_engine_answers_and_leaves_the_server_alone(self, sglang: SGLangEngine) -> None:
        entry = SGLangModel.model_validate(
            {"name": "near", "engine": "sglang", "url": sglang.endpoint.url, "remote_name": "default"}
        )
        attached = SGLangEngine(entry, api_key=sglang.endpoint.api_key)
        await attached.start()

        last = (await answer(attached, chat("attached")))[-1]
        await attached.close()

        assert last.finish_reason == "stop"
        assert (await sglang.health()).state is EngineState.READY

    async def test_a_killed_server_fails_its_streams_and_serves_again(
        self, engine: Engine, sglang: SGLangEngine
    ) -> None:
        assert sglang.supervisor is not None
        stream = engine.generate(endless("killed"))
        await anext(stream)
        pid = sglang.supervisor.pid
        assert pid is not None

        os.kill(pid, signal.SIGKILL)

        with pytest.raises(EngineUnavailable):
            _ = [delta async for delta in stream]
        supervisor = sglang.supervisor
        await until(lambda: supervisor.pid not in {None, pid}, within=30)
        await until(lambda: supervisor.state is EngineState.READY, within=120)
        assert (await answer(engine, chat("again")))[-1].finish_reason == "stop"


async def test_an_option_that_sglang_does_not_know_is_refused_with_its_own_words() -> None:
    engine = SGLangEngine(TINY.model_copy(update={"options": {"no-such-option": 1}}))

    with pytest.raises(EngineUnavailable, match=r"(?s)exited with.*--no-such-option"):
        await engine.start()
    await asyncio.wait_for(engine.close(), 30)
