"""The engine contract, run against each engine; then what only real servers can show."""

import asyncio
import os
import signal
import subprocess
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
import pytest_asyncio

from core.errors import ConfigurationMistake, EngineRefused, EngineUnavailable
from models.catalogue import BUNDLED_FOLDER, AnyModel, LlamaCppModel, OpenAIModel
from tests.contracts.engine_contract import (
    CONTEXT_LENGTH,
    SLOTS,
    BusySlots,
    EngineContract,
    answer,
    chat,
    endless,
    until,
)
from tests.fakes.simulated_engine import Latency, SimulatedEngine
from workers.engines.llamacpp_engine import LlamaCppEngine, Watch
from workers.engines.openai_engine import OpenAIEngine
from workers.engines.openai_stream import Endpoint, OpenAIStream
from workers.engines.protocol import Engine, EngineState, Prompt, Sampling
from workers.engines.registry import build_engine
from workers.engines.request_body import Dialect
from workers.engines.supervisor import Restarts

GGUF = BUNDLED_FOLDER / "support-tiny-Q8_0.gguf"
QUICK = Restarts(first_delay=timedelta(milliseconds=10))
on_one_loop = pytest.mark.asyncio(loop_scope="module")


def tiny_model(path: Path = GGUF) -> LlamaCppModel:
    return LlamaCppModel(
        name="default", engine="llamacpp", path=path, slots=SLOTS, context_length=CONTEXT_LENGTH
    )


def busy_slots_of(endpoint: Endpoint) -> BusySlots:
    async def busy() -> int:
        asking = OpenAIStream(endpoint, Dialect("default"))
        asking.open()
        try:
            _, body = await asking.get("slots")
        finally:
            await asking.close()
        return sum(slot["is_processing"] for slot in orjson.loads(body))

    return busy


def is_alive(pid: int) -> bool:
    """An orphan may stay a zombie for as long as its new parent likes."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()[:1] not in {"", "Z"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def llamacpp() -> AsyncIterator[LlamaCppEngine]:
    engine = LlamaCppEngine(tiny_model(), restarts=QUICK)
    await engine.start()
    yield engine
    pid = engine.supervisor.pid
    await engine.close()
    assert pid is not None
    assert not is_alive(pid)
    assert (await engine.health()).state is EngineState.CLOSED


@on_one_loop
class TestSimulated(EngineContract):
    @pytest_asyncio.fixture(loop_scope="module")
    async def engine(self) -> AsyncIterator[Engine]:
        engine = SimulatedEngine(
            Latency(per_token=timedelta(milliseconds=1)), slots=SLOTS, context_length=CONTEXT_LENGTH
        )
        await engine.start()
        yield engine
        await engine.close()

    @pytest.fixture
    def busy_slots(self, engine: SimulatedEngine) -> BusySlots:
        async def busy() -> int:
            return engine.busy

        return busy

    async def test_a_crash_fails_what_is_under_way(self, engine: SimulatedEngine) -> None:
        stream = engine.generate(endless("crashed"))
        await anext(stream)

        engine.crash()

        with pytest.raises(EngineUnavailable):
            await anext(stream)
        assert (await answer(engine, chat("after")))[-1].finish_reason


async def test_an_instant_simulated_engine_may_be_told_to_fail() -> None:
    engine = SimulatedEngine(fail=lambda prompt: EngineRefused("no") if prompt.text == "bad" else None)
    await engine.start()

    assert (await answer(engine, chat("good")))[-1].finish_reason == "stop"
    with pytest.raises(EngineRefused):
        await answer(engine, Prompt("bad", text="bad"))


class RealEngineContract(EngineContract):
    async def test_a_shared_prefix_comes_from_the_cache(self, engine: Engine) -> None:
        rules = "You answer questions about invoices, parcels and passwords. " * 8
        await answer(engine, chat("cold", rules + "How do I pay?"))

        last = (await answer(engine, chat("warm", rules + "Where is my parcel?")))[-1]

        assert last.usage is not None
        assert last.usage.cached_tokens > last.usage.prompt_tokens / 2

    async def test_log_probabilities_come_with_their_tokens(self, engine: Engine) -> None:
        deltas = await answer(engine, chat("logprobs", max_tokens=3, logprobs=1))

        entries = [entry for delta in deltas[:-1] for entry in delta.logprobs]
        assert [entry["token"] for entry in entries] == [delta.text for delta in deltas[:-1]]

    async def test_a_stop_string_ends_the_answer(self, engine: Engine) -> None:
        full = "".join(d.text for d in await answer(engine, chat("whole")))
        stop = full.split()[3]

        cut = await answer(engine, chat("cut", stop=(stop,)))

        assert stop not in "".join(d.text for d in cut)
        assert cut[-1].finish_reason == "stop"

    async def test_a_request_that_the_server_does_not_understand_is_refused(self, engine: Engine) -> None:
        wrong = {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}

        with pytest.raises(EngineRefused):
            await answer(engine, chat("refused", response_format=wrong))


@on_one_loop
class TestLlamaCpp(RealEngineContract):
    @pytest.fixture
    def engine(self, llamacpp: LlamaCppEngine) -> Engine:
        return llamacpp

    @pytest.fixture
    def busy_slots(self, llamacpp: LlamaCppEngine) -> BusySlots:
        return busy_slots_of(llamacpp.endpoint)

    @pytest.mark.parametrize("wrapper", ["schema", None], ids=["wrapped", "bare"])
    async def test_a_schema_shapes_the_answer(self, engine: Engine, wrapper: str | None) -> None:
        schema = {"enum": ["red", "blue"]}
        shape = {"type": "json_schema", "json_schema": {wrapper: schema} if wrapper else schema}
        sampling = Sampling(max_tokens=64, temperature=0, response_format=shape)

        chatted = await answer(engine, chat("chat-schema", response_format=shape))
        completed = await answer(engine, Prompt("raw-schema", text="Colour:", sampling=sampling))

        for deltas in (chatted, completed):
            assert orjson.loads("".join(d.text for d in deltas)) in {"red", "blue"}

    async def test_a_killed_server_fails_its_streams_and_serves_again(
        self, engine: Engine, llamacpp: LlamaCppEngine
    ) -> None:
        stream = engine.generate(endless("killed"))
        await anext(stream)
        pid = llamacpp.supervisor.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)  # so that it cannot finish before it dies

        os.kill(pid, signal.SIGKILL)

        with pytest.raises(EngineUnavailable):
            _ = [delta async for delta in stream]
        await until(lambda: llamacpp.supervisor.pid not in {None, pid})
        await until(lambda: llamacpp.supervisor.state is EngineState.READY)
        assert (await answer(engine, chat("again")))[-1].finish_reason == "stop"


@on_one_loop
class TestOpenAI(RealEngineContract):
    @pytest_asyncio.fixture(loop_scope="module")
    async def engine(self, llamacpp: LlamaCppEngine) -> AsyncIterator[Engine]:
        engine = OpenAIEngine(llamacpp.endpoint, Dialect("default", "repeat_penalty"))
        await engine.start()
        yield engine
        await engine.close()

    @pytest.fixture
    def busy_slots(self, llamacpp: LlamaCppEngine) -> BusySlots:
        return busy_slots_of(llamacpp.endpoint)

    async def test_closing_the_engine_fails_its_streams(self, engine: Engine) -> None:
        stream = engine.generate(endless("closed"))
        await anext(stream)

        await engine.close()

        with pytest.raises(EngineUnavailable):
            _ = [delta async for delta in stream]


async def test_a_server_that_nobody_runs_is_unavailable() -> None:
    engine = OpenAIEngine(Endpoint("http://127.0.0.1:9"), Dialect("default"))

    with pytest.raises(EngineUnavailable):
        await engine.start()
    await engine.close()


async def test_a_broken_model_file_is_told_with_the_servers_log(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"not a model")

    engine = LlamaCppEngine(tiny_model(path))
    with pytest.raises(EngineUnavailable, match=r"(?s)exited with.*broken\.gguf"):
        await engine.start()
    await engine.close()


async def test_a_context_beyond_the_models_is_a_mistake() -> None:
    engine = LlamaCppEngine(tiny_model().model_copy(update={"context_length": 4096, "origin": "m.toml:7"}))

    with pytest.raises(ConfigurationMistake, match=r"m\.toml:7: .* Use at most 2048"):
        await engine.start()
    await engine.close()


async def test_a_prompt_being_read_is_progress() -> None:
    watch = Watch(look_every=timedelta(milliseconds=5))
    engine = LlamaCppEngine(tiny_model().model_copy(update={"batch_tokens": 8}), watch=watch)
    await engine.start()
    prompt = Prompt("reading", text="hello " * 1000, sampling=Sampling(max_tokens=1))
    task = asyncio.create_task(answer(engine, prompt))
    await asyncio.sleep(0)
    marks = set()

    async def moved() -> bool:
        marks.add((await engine.health()).progressed_at)
        return len(marks) > 3

    await until(moved)

    assert not task.done()
    await engine.abort("reading")
    await task
    await engine.close()


async def test_a_hanging_server_is_killed_and_started_again() -> None:
    watch = Watch(look_every=timedelta(milliseconds=20), stall=timedelta(milliseconds=300))
    engine = LlamaCppEngine(tiny_model(), restarts=QUICK, watch=watch)
    await engine.start()
    stream = engine.generate(endless("hangs"))
    await anext(stream)
    pid = engine.supervisor.pid
    assert pid is not None

    os.kill(pid, signal.SIGSTOP)

    with pytest.raises(EngineUnavailable):
        _ = [delta async for delta in stream]
    await until(lambda: engine.supervisor.pid not in {None, pid})
    await engine.close()


ORPHANER = """
import asyncio, sys
from pathlib import Path
from models.catalogue import Catalogue
from workers.engines.llamacpp_engine import LlamaCppEngine

async def main():
    engine = LlamaCppEngine(Catalogue.bundled().get(None))
    await engine.start()
    print(engine.supervisor.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


TETHERED = """
import threading
from workers.engines.tether import die_with_parent

die_with_parent()
print("tethered", flush=True)
threading.Event().wait()
"""


async def test_the_server_dies_with_a_worker_that_is_killed() -> None:
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", ORPHANER, stdout=PIPE)
    assert worker.stdout is not None
    pid = int(await anext(line async for line in worker.stdout if line.strip().isdigit()))

    worker.kill()
    await worker.wait()

    await until(lambda: not is_alive(pid))


async def test_the_server_dies_when_its_standard_input_closes() -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", TETHERED, stdin=PIPE, stdout=PIPE, start_new_session=True
    )
    assert server.stdin is not None
    assert server.stdout is not None
    await server.stdout.readline()

    server.stdin.close()

    assert await asyncio.wait_for(server.wait(), 10) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (tiny_model(Path("nowhere.gguf")), "nowhere.gguf"),
        (
            OpenAIModel.model_validate(
                {"name": "far", "engine": "openai", "url": "http://far:1", "api_key_env": "FAR_KEY"}
            ),
            "FAR_KEY",
        ),
    ],
)
def test_an_entry_that_cannot_work_here_is_refused_before_it_starts(model: AnyModel, says: str) -> None:
    with pytest.raises(ConfigurationMistake, match=says):
        build_engine(model, environ={})
