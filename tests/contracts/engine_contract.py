"""What every engine must do, whatever runs behind it."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import pytest

from core.errors import PromptTooLong
from workers.engines.protocol import Delta, Engine, EngineState, Prompt, Sampling

SLOTS = 2
CONTEXT_LENGTH = 2048
BusySlots = Callable[[], Awaitable[int]]
# A penalty below 1 rewards repetition: the tiny model then never ends its answer.
ENDLESS = Sampling(max_tokens=1900, temperature=0, repetition_penalty=0.1)


def chat(request_id: str, text: str = "How do I reset my password?", **sampling: Any) -> Prompt:
    fields = {"temperature": 0.0, "max_tokens": 64} | sampling
    return Prompt(request_id, messages=({"role": "user", "content": text},), sampling=Sampling(**fields))


def endless(request_id: str) -> Prompt:
    return Prompt(request_id, text="hello hello hello", sampling=ENDLESS)


async def answer(engine: Engine, prompt: Prompt) -> list[Delta]:
    return [delta async for delta in engine.generate(prompt)]


async def until(holds: Callable[[], Any], *, within: float = 10) -> None:
    """Polls `holds`, a function or coroutine function, until it is true."""
    deadline = monotonic() + within
    while True:
        found = holds()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return
        assert monotonic() < deadline, "did not become true in time"
        await asyncio.sleep(0.01)


class EngineContract:
    """A subclass gives the fixtures `engine` (started) and `busy_slots` (how many work now)."""

    async def test_an_answer_arrives_in_pieces_and_ends_with_its_usage(self, engine: Engine) -> None:
        deltas = await answer(engine, chat("streams"))

        *pieces, last = deltas
        # Tokens that came together are one delta; how many do is the machine's affair.
        assert sum(piece.pieces for piece in pieces) > 3
        assert all(piece.text and piece.finish_reason is None for piece in pieces)
        assert last.finish_reason == "stop"
        assert last.usage is not None
        assert last.usage.prompt_tokens > 0
        assert 0 < last.usage.completion_tokens <= 64

    async def test_a_raw_prompt_is_completed(self, engine: Engine) -> None:
        deltas = await answer(engine, Prompt("raw", text="How do I", sampling=Sampling(max_tokens=4)))

        assert deltas[-1].usage is not None
        assert "".join(delta.text for delta in deltas)

    async def test_max_tokens_ends_the_answer(self, engine: Engine) -> None:
        last = (await answer(engine, chat("short", max_tokens=3)))[-1]

        assert last.finish_reason == "length"
        assert last.usage is not None
        assert last.usage.completion_tokens == 3

    async def test_the_same_prompt_alone_has_the_same_answer(self, engine: Engine) -> None:
        texts = {"".join(d.text for d in await answer(engine, chat(f"same-{n}"))) for n in range(3)}

        assert len(texts) == 1

    async def test_more_requests_than_slots_are_all_answered(self, engine: Engine) -> None:
        prompts = [chat(f"many-{n}", f"Question {n}: how do I pay?") for n in range(SLOTS * 2)]

        answers = await asyncio.gather(*(answer(engine, prompt) for prompt in prompts))

        assert all(deltas[-1].finish_reason in {"stop", "length"} for deltas in answers)

    async def test_an_abort_ends_the_stream_and_frees_the_slot(
        self, engine: Engine, busy_slots: BusySlots
    ) -> None:
        stream = engine.generate(endless("aborted"))
        await anext(stream)

        await engine.abort("aborted")
        rest = [delta async for delta in stream]

        assert rest[-1].finish_reason == "abort"
        assert len(rest) < ENDLESS.max_tokens / 2
        await until(lambda: none_busy(busy_slots))

    async def test_an_abort_reaches_a_request_that_still_waits(
        self, engine: Engine, busy_slots: BusySlots
    ) -> None:
        running = [engine.generate(endless(f"ahead-{n}")) for n in range(SLOTS)]
        for stream in running:
            await anext(stream)
        waiting = asyncio.create_task(answer(engine, endless("waiting")))
        await asyncio.sleep(0)

        await engine.abort("waiting")
        for stream in running:
            await stream.aclose()

        assert (await waiting)[-1].finish_reason == "abort"
        await until(lambda: none_busy(busy_slots))

    async def test_closing_the_stream_early_frees_the_slot(
        self, engine: Engine, busy_slots: BusySlots
    ) -> None:
        streams = [engine.generate(endless(f"left-{n}")) for n in range(SLOTS)]
        for stream in streams:
            await anext(stream)

        for stream in streams:
            await stream.aclose()

        await until(lambda: none_busy(busy_slots))
        assert (await answer(engine, chat("after")))[-1].finish_reason

    async def test_cancelling_the_task_frees_the_slot(self, engine: Engine, busy_slots: BusySlots) -> None:
        task = asyncio.create_task(answer(engine, endless("cancelled")))
        await until(lambda: some_busy(busy_slots))

        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        await until(lambda: none_busy(busy_slots))

    async def test_aborting_an_unknown_request_does_nothing(self, engine: Engine) -> None:
        await engine.abort("nobody")

        assert (await engine.health()).state is EngineState.READY

    async def test_a_prompt_beyond_the_context_is_too_long(self, engine: Engine) -> None:
        with pytest.raises(PromptTooLong) as caught:
            await answer(engine, chat("long", "hello " * CONTEXT_LENGTH))

        assert caught.value.field == "messages"

    async def test_a_token_is_progress(self, engine: Engine) -> None:
        before = (await engine.health()).progressed_at

        await answer(engine, chat("progress"))

        assert (await engine.health()).progressed_at > before


async def none_busy(busy_slots: BusySlots) -> bool:
    return await busy_slots() == 0


async def some_busy(busy_slots: BusySlots) -> bool:
    return await busy_slots() > 0
