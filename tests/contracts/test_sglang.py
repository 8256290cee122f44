"""Real SGLang on the CPU: the engine contract, and what only this engine does."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from core.errors import EngineUnavailable
from models.catalogue import BUNDLED_FOLDER, SGLangModel
from tests.contracts.engine_contract import (
    CONTEXT_LENGTH,
    ENDLESS,
    SLOTS,
    BusySlots,
    answer,
    chat,
    endless,
    until,
)
from tests.contracts.test_engines import RealEngineContract
from workers.engines.openai_stream import OpenAIStream
from workers.engines.protocol import Engine, EngineState, Prompt, Sampling
from workers.engines.request_body import Dialect
from workers.engines.sglang_engine import SGLangEngine
from workers.engines.supervisor import Restarts

REFERENCE = Path(__file__).with_name("reference_tokens.py")
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
        "priority_scheduling": True,
        # Else the count of running requests is seconds old.
        "options": {"load-snapshot-publish-interval": 1},
    }
)
BULK, PREMIUM = 5, 25
SYSTEM = {"role": "system", "content": "You answer questions of customers, briefly and kindly."}
CHATS: list[list[dict[str, str]]] = [
    [{"role": "user", "content": "How do I reset my password?"}],
    [{"role": "user", "content": "Where is my order A1234?"}],
    [SYSTEM, {"role": "user", "content": "Can I pay with PayPal?"}],
    [SYSTEM, {"role": "user", "content": "Do you ship to Canada?"}],
    [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "How can I help you today?"},
        {"role": "user", "content": "I want to cancel order B7301 please"},
    ],
    [{"role": "user", "content": "我的订单C2048到哪了"}],
]
RAW = ("How do I", "The Team plan costs", "hello hello hello")
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


async def loads(sglang: SGLangEngine) -> tuple[int, int]:
    """Requests that run and that wait inside SGLang."""
    asking = OpenAIStream(sglang.endpoint, Dialect("default"))
    asking.open()
    try:
        _, body = await asking.get("v1/loads")
    finally:
        await asking.close()
    found = orjson.loads(body)["loads"]
    return sum(one["num_running_reqs"] for one in found), sum(one["num_waiting_reqs"] for one in found)


async def waiting_are(sglang: SGLangEngine, count: int) -> bool:
    return (await loads(sglang))[1] == count


def reference_tokens(prompts: list[dict[str, Any]], *, max_tokens: int) -> list[list[str]]:
    asked = {"model": TINY.path, "max_tokens": max_tokens, "prompts": prompts}
    done = subprocess.run(
        [PYTHON, REFERENCE], input=json.dumps(asked) + "\n", capture_output=True, text=True, check=True
    )
    return [whole_characters(tokens) for tokens in json.loads(done.stdout.splitlines()[-1])]


def whole_characters(tokens: list[str]) -> list[str]:
    """Without tokens that end inside a character, of which SGLang streams an entry for some only.

    And without the end of the answer, which it tells on /v1/completions alone.
    """
    return [token for token in tokens if "\ufffd" not in token and token != "<|im_end|>"]


async def greedy_tokens(engine: Engine, name: str, asked: dict[str, Any]) -> list[str]:
    sampling = Sampling(max_tokens=48, temperature=0, logprobs=1)
    messages = tuple(asked["messages"]) if "messages" in asked else None
    prompt = Prompt(name, messages=messages, text=asked.get("text"), sampling=sampling)
    deltas = await answer(engine, prompt)
    return whole_characters([entry["token"] for delta in deltas for entry in delta.logprobs or ()])


@on_one_loop
class TestSGLang(RealEngineContract):
    @pytest.fixture
    def engine(self, sglang: SGLangEngine) -> Engine:
        return sglang

    @pytest.fixture
    def busy_slots(self, sglang: SGLangEngine) -> BusySlots:
        async def busy() -> int:
            return (await loads(sglang))[0]

        return busy

    async def test_greedy_tokens_are_those_of_transformers(self, engine: Engine) -> None:
        """All at once, so that they meet in one batch, and then again from the prefix cache."""
        asked: list[dict[str, Any]] = [{"messages": messages} for messages in CHATS]
        asked += [{"text": text} for text in RAW]
        reference = await asyncio.to_thread(reference_tokens, asked, max_tokens=48)

        for turn in ("cold", "warm"):
            found = await asyncio.gather(
                *(greedy_tokens(engine, f"{turn}-{n}", one) for n, one in enumerate(asked))
            )
            assert found == reference

    async def test_a_premium_request_overtakes_bulk_ones_that_wait(
        self, engine: Engine, sglang: SGLangEngine
    ) -> None:
        running = [engine.generate(replace(endless(f"full-{n}"), priority=BULK)) for n in range(SLOTS)]
        for stream in running:
            await anext(stream)
        began: list[str] = []

        async def ask(name: str, priority: int) -> None:
            async for _ in engine.generate(replace(chat(name, max_tokens=2), priority=priority)):
                if name not in began:
                    began.append(name)

        bulk = [asyncio.create_task(ask(f"bulk-{n}", BULK)) for n in range(6)]
        await until(lambda: waiting_are(sglang, 6))
        premium = asyncio.create_task(ask("premium", PREMIUM))
        await until(lambda: waiting_are(sglang, 7))
        await running[0].aclose()
        await asyncio.gather(premium, *bulk)
        await running[1].aclose()

        assert began[0] == "premium"
        assert len(began) == 7

    async def test_a_request_of_these_routes_is_aborted_by_its_name(
        self, engine: Engine, sglang: SGLangEngine
    ) -> None:
        stream = engine.generate(endless("named"))
        await anext(stream)

        await sglang._stream.tell("abort_request", {"rid": "named"})
        rest = [delta async for delta in stream]

        assert rest[-1].finish_reason == "abort"
        assert len(rest) < ENDLESS.max_tokens / 2

    async def test_many_that_share_a_beginning_read_it_once(self, engine: Engine) -> None:
        rules = (
            "You answer questions about invoices, parcels and passwords, and never about the weather. " * 12
        )
        await answer(engine, chat("first", rules + "How do I pay?"))

        answers = await asyncio.gather(
            *(answer(engine, chat(f"kin-{n}", rules + f"Question {n}?", max_tokens=2)) for n in range(16))
        )

        usages = [deltas[-1].usage for deltas in answers]
        cached = sum(usage.cached_tokens for usage in usages if usage)
        assert cached > 0.9 * sum(usage.prompt_tokens for usage in usages if usage)

    async def test_every_sampling_field_is_taken(self, engine: Engine) -> None:
        fields = {"temperature": 0.9, "top_p": 0.9, "top_k": 20, "min_p": 0.05, "seed": 7, "stop": ("zebra",)}
        penalties = {"presence_penalty": 0.1, "frequency_penalty": 0.1, "repetition_penalty": 1.1}

        chatted = await answer(engine, chat("fields", **fields, **penalties))
        sampling = Sampling(max_tokens=8, **fields, **penalties)  # type: ignore[arg-type]
        completed = await answer(engine, Prompt("raw-fields", text="How do I", sampling=sampling))

        assert chatted[-1].usage is not None
        assert completed[-1].usage is not None

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
