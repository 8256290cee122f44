"""What the stream client makes of servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from itertools import pairwise

import pytest
from aiohttp import web

from core.errors import EngineRefused, EngineUnavailable, GenerationStalled, PromptTooLong
from tests.contracts.engine_contract import answer, chat
from workers.engines.openai_engine import OpenAIEngine
from workers.engines.openai_stream import Endpoint, Patience
from workers.engines.protocol import EngineState, Prompt, Usage
from workers.engines.request_body import Dialect, request_for

TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"caf\xc3\xa9 "},"finish_reason":null}]}\n\n'
THOUGHT = b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"hm"},"finish_reason":null}]}\n\n'
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1,"prompt_tokens_details":null}}\n\n'
)
DONE = b"data: [DONE]\n\n"
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]
Attach = Callable[[Reply], Awaitable[OpenAIEngine]]


async def serve(reply: Reply) -> tuple[web.AppRunner, Endpoint]:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", reply)
    app.router.add_get("/v1/models", says(200, "{}"))
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, Endpoint(f"http://127.0.0.1:{runner.addresses[0][1]}")


@pytest.fixture
async def attach() -> AsyncIterator[Attach]:
    """Gives an engine whose server answers with the function passed in."""
    closing: list[Callable[[], Awaitable[None]]] = []

    async def attach(reply: Reply) -> OpenAIEngine:
        runner, endpoint = await serve(reply)
        engine = OpenAIEngine(endpoint, Dialect("m"), patience=Patience(silence=timedelta(milliseconds=200)))
        closing.extend((engine.close, runner.cleanup))
        await engine.start()
        return engine

    yield attach
    for close in closing:
        await close()


def streams(*parts: bytes) -> Reply:
    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for part in parts:
            await response.write(part)
            await asyncio.sleep(0)
        return response

    return reply


def says(status: int, text: str) -> Reply:
    async def reply(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=text)

    return reply


async def test_events_may_be_cut_anywhere(attach: Attach) -> None:
    whole = b": keep-alive\n\n" + THOUGHT + TOKEN + END + USAGE + DONE
    cuts = [0, *range(3, len(whole), 7), len(whole)]
    engine = await attach(streams(*(whole[a:b] for a, b in pairwise(cuts))))

    thought, token, last = await answer(engine, chat("cut"))

    assert (thought.reasoning, token.text) == ("hm", "café ")
    assert (last.finish_reason, last.usage) == ("stop", Usage(7, 1, 0))


async def test_what_comes_at_once_is_one_piece_and_a_count(attach: Attach) -> None:
    engine = await attach(streams(2 * THOUGHT + 3 * TOKEN + END + USAGE + DONE))

    thought, text, last = await answer(engine, chat("fast"))

    assert (thought.reasoning, thought.pieces) == ("hmhm", 2)
    assert (text.text, text.pieces) == (3 * "café ", 3)
    assert last.finish_reason == "stop"


async def test_a_fast_answer_is_read_whole_however_it_comes(attach: Attach) -> None:
    engine = await attach(streams(*[TOKEN] * 200, END, USAGE, DONE))

    *pieces, last = await answer(engine, chat("fast"))

    assert "".join(piece.text for piece in pieces) == 200 * "café "
    assert sum(piece.pieces for piece in pieces) == 200
    assert last.usage == Usage(7, 1)


async def test_a_server_without_usage_and_end_mark_still_ends(attach: Attach) -> None:
    engine = await attach(streams(TOKEN, TOKEN, END))

    last = (await answer(engine, chat("plain")))[-1]

    assert last.usage == Usage(prompt_tokens=0, completion_tokens=2)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (streams(TOKEN), EngineUnavailable),
        (streams(TOKEN, DONE), EngineUnavailable),
        (streams(TOKEN, b"data: {]\n\n"), EngineUnavailable),
        (streams(TOKEN, b'data: {"hello":1}\n\n'), EngineUnavailable),
        (streams(TOKEN, b'data: {"error":{"message":"out of memory"}}\n\n'), EngineUnavailable),
        (streams(b'data: {"error":{"code":400,"message":"bad grammar"}}\n\n'), EngineRefused),
        (says(500, "oops"), EngineUnavailable),
        (says(503, '{"error":{"message":"Loading model"}}'), EngineUnavailable),
        (says(429, '{"error":{"message":"slow down"}}'), EngineUnavailable),
        (says(401, '{"error":{"message":"no key"}}'), EngineUnavailable),
        (says(400, '{"error":{"message":"temperature"}}'), EngineRefused),
        (says(422, '{"detail":[{"loc":["body"]}]}'), EngineRefused),
        (says(400, '{"error":{"code":"context_length_exceeded","message":"long"}}'), PromptTooLong),
        (says(400, '{"message":"This model\'s maximum context length is 9 tokens."}'), PromptTooLong),
        (says(400, '{"error":{"message":"It is longer than the model\'s context length"}}'), PromptTooLong),
    ],
)
async def test_a_failure_says_whether_trying_again_helps(
    attach: Attach, reply: Reply, error: type[Exception]
) -> None:
    engine = await attach(reply)

    with pytest.raises(error) as caught:
        await answer(engine, chat("fails"))

    assert type(caught.value) is error


async def test_a_refusal_carries_the_servers_words(attach: Attach) -> None:
    engine = await attach(says(400, '{"error":{"message":"top_p must be positive"}}'))

    with pytest.raises(EngineRefused, match="400: top_p must be positive"):
        await answer(engine, chat("refused"))


async def test_a_broken_connection_is_unavailable(attach: Attach) -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(TOKEN)
        assert request.transport is not None
        request.transport.abort()
        return response

    engine = await attach(reply)

    with pytest.raises(EngineUnavailable):
        await answer(engine, chat("reset"))


async def test_silence_is_a_stall_and_an_abort_ends_it(attach: Attach) -> None:
    released = asyncio.Event()

    async def reply(_: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    engine = await attach(reply)
    task = asyncio.create_task(answer(engine, chat("aborted")))
    await asyncio.sleep(0)
    await engine.abort("aborted")

    assert [delta.finish_reason for delta in await task] == ["abort"]
    with pytest.raises(GenerationStalled):
        await answer(engine, chat("silent"))
    released.set()


def test_a_reasoning_switch_goes_only_to_servers_that_know_it() -> None:
    prompt = Prompt("r", messages=({"role": "user", "content": "hi"},), reasoning=False)

    plain = request_for(prompt, Dialect("m"))[1]
    knowing = request_for(prompt, Dialect("m", template_switches=True))[1]

    assert "chat_template_kwargs" not in plain
    # Qwen's name for it, and DeepSeek's: templates ignore what they do not know.
    assert knowing["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}


async def test_a_server_that_went_away_is_unreachable() -> None:
    runner, endpoint = await serve(says(200, ""))
    engine = OpenAIEngine(endpoint, Dialect("m"), probe_after=timedelta(0))
    await engine.start()
    assert (await engine.health()).state is EngineState.READY

    await runner.cleanup()

    assert (await engine.health()).state is EngineState.UNREACHABLE
    await engine.close()
    assert (await engine.health()).state is EngineState.CLOSED


async def test_a_server_that_broke_a_stream_is_asked_before_it_is_believed() -> None:
    """Its last byte is a moment old, and it is gone: the next job would lose an attempt to it."""
    runners: list[web.AppRunner] = []

    async def die(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b": a byte\n\n")
        assert request.transport is not None
        request.transport.abort()
        await runners[0].sites.copy().pop().stop()
        return response

    runner, endpoint = await serve(die)
    runners.append(runner)
    engine = OpenAIEngine(endpoint, Dialect("m"))
    await engine.start()

    with pytest.raises(EngineUnavailable):
        await answer(engine, chat("deadly"))

    assert (await engine.health()).state is EngineState.UNREACHABLE
    await engine.close()
    await runner.cleanup()


async def test_a_silent_server_that_still_answers_questions_counts_as_progress() -> None:
    released = asyncio.Event()

    async def reply(_: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    runner, endpoint = await serve(reply)
    engine = OpenAIEngine(endpoint, Dialect("m"), probe_after=timedelta(0))
    await engine.start()
    idle = [(await engine.health()).progressed_at for _ in range(2)]
    task = asyncio.create_task(answer(engine, chat("silent")))
    await asyncio.sleep(0)

    waiting = [(await engine.health()).progressed_at for _ in range(2)]

    assert idle[0] == idle[1] < waiting[0] < waiting[1]
    released.set()
    with pytest.raises(EngineUnavailable):
        await task
    await engine.close()
    await runner.cleanup()
