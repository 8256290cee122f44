"""An OpenAI-compatible server around the simulated engine: fast, killable, and it dies of marked prompts.

Run: python -m tests.fakes.openai_server --port 9000 --log starts.log
A parent restarts the serving child when that dies; both end with the parent. The first word of a prompt is
its label and comes back in the answer with a serial number, so that no two executions answer alike.
`pace=20` in a prompt makes a token take 20 ms; `POISON` kills the child in the middle of the answer.
"""

import argparse
import asyncio
import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from itertools import count
from typing import Any, Final

import orjson
from aiohttp import web

from tests.fakes.simulated_engine import Latency, SimulatedEngine
from workers.engines.protocol import Prompt, Sampling

_PACE: Final = re.compile(r"pace=(\d+)")
_SLOTS: Final = 1024
_POISON: Final = "POISON"
_SIGKILL_WITH_PARENT: Final = 1  # PR_SET_PDEATHSIG


class Server:
    """One engine for each pace; `log` gets a line for each first token: time, label, serial."""

    def __init__(self, log: int) -> None:
        self._log = log
        self._engines: dict[int, SimulatedEngine] = {}
        self._serials = count()

    def app(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [web.get("/v1/models", self._models), web.post("/v1/chat/completions", self._chat)]
        )
        return application

    async def _models(self, _request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "default", "object": "model"}]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        text = " ".join(message["content"] for message in body["messages"])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        serial = f"{os.getpid()}.{next(self._serials)}"
        label = text.split(maxsplit=1)[0]
        os.write(self._log, f"{time.time():.6f} {label} {serial}\n".encode())
        await response.write(_event({"choices": [_choice(f"[{label}#{serial}] ")]}))
        if _POISON in text:
            os.kill(os.getpid(), signal.SIGKILL)
        async for chunk in self._rest(serial, body, text):
            await response.write(chunk)
        return response

    async def _rest(self, serial: str, body: dict[str, Any], text: str) -> AsyncIterator[bytes]:
        pace = int(found[1]) if (found := _PACE.search(text)) else 0
        engine = await self._engine(pace)
        sampling = Sampling(max_tokens=body.get("max_tokens", 16))
        prompt = Prompt(serial, messages=tuple(body["messages"]), sampling=sampling)
        gathered = b""
        async with aclosing(engine.generate(prompt)) as deltas:
            async for delta in deltas:
                event: dict[str, Any] = {"choices": [_choice(delta.text, delta.finish_reason)]}
                if delta.usage is not None:
                    event["usage"] = {
                        "prompt_tokens": delta.usage.prompt_tokens,
                        "completion_tokens": delta.usage.completion_tokens,
                    }
                gathered += _event(event)
                if pace:  # instant answers go in one piece
                    yield gathered
                    gathered = b""
        yield gathered + b"data: [DONE]\n\n"

    async def _engine(self, pace: int) -> SimulatedEngine:
        engine = self._engines.get(pace)
        if engine is None:
            token = timedelta(milliseconds=pace)
            engine = self._engines[pace] = SimulatedEngine(Latency(token, token), slots=_SLOTS)
            await engine.start()
        return engine


def _choice(text: str, finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


async def serve(port: int, log: int) -> None:
    runner = web.AppRunner(Server(log).app(), handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
    await asyncio.Event().wait()


def keep(port: int, log: int) -> None:
    """Serves in a child, again and again. The child says its process id on standard output."""
    while True:
        child = os.fork()
        if child == 0:
            ctypes.CDLL(None).prctl(_SIGKILL_WITH_PARENT, signal.SIGKILL)
            sys.stdout.write(f"{os.getpid()}\n")
            sys.stdout.flush()
            asyncio.run(serve(port, log))
        os.waitpid(child, 0)
        time.sleep(0.3)  # what a real engine needs longer for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", required=True)
    arguments = parser.parse_args()
    log = os.open(arguments.log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)
    keep(arguments.port, log)


if __name__ == "__main__":
    main()
