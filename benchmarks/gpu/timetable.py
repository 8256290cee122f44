"""A server that keeps SGLang's timetable and computes nothing: it shows what the platform loses around it.

Run: python -m benchmarks.gpu.timetable --model 8b --port 30111 --slots 256 --stream-interval 16
Prompts pass one tokenizing process, wait, are read in batches of chunks before anything is decoded further,
and then make a token per step together. The pace of each is fitted to one H100 (docs/benchmarks/gpu).
"""

import argparse
import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web

_CHUNK: Final = 8192  # prompt tokens of one prefill batch
_OWN: Final = 72  # tokens of a prompt that no cache holds


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: of the front for a prompt and for an event; of a prefill, whole and per token; of a step."""

    front: float
    event: float
    prefill: float
    prompt_token: float
    step: float
    running: float  # what one more running request adds to a step


PACES: Final = {
    "8b": Pace(0.0012, 0.00015, 0.02, 4e-5, 0.0063, 4e-5),
    "0.5b": Pace(0.0012, 0.00015, 0.01, 4e-6, 0.003, 5e-6),
    "tiny": Pace(0.0012, 0.00015, 0.002, 1e-6, 0.001, 1e-6),
}


@dataclass(eq=False)
class Asked:
    """One request. `pieces` gets what is streamed: so many tokens each, then None."""

    rid: str
    tokens: int
    every: int
    pieces: "asyncio.Queue[int | None]" = field(default_factory=asyncio.Queue)
    made: int = 0
    sent: int = 0
    is_gone: bool = False


class Timetable:
    """The scheduler: prompts first, up to `slots` at once; then a step for all that run."""

    def __init__(self, pace: Pace, *, slots: int, every: int) -> None:
        self.every = every
        self.waiting: deque[Asked] = deque()
        self.running: list[Asked] = []
        self.known: dict[str, Asked] = {}
        self._pace = pace
        self._slots = slots
        self._front_free = 0.0
        self._news = asyncio.Event()

    async def tokenize(self, request: Asked) -> None:
        """Through the front, one after another, and into the queue."""
        await asyncio.sleep(self._front(self._pace.front))
        self.known[request.rid] = request
        self.waiting.append(request)
        self._news.set()

    def abort(self, rid: str) -> None:
        request = self.known.get(rid)
        if request is not None:
            request.is_gone = True

    def _front(self, seconds: float) -> float:
        """The front takes one thing at a time: how long from now until this one is through it."""
        now = time.perf_counter()
        self._front_free = max(now, self._front_free) + seconds
        return self._front_free - now

    async def run(self) -> None:
        at = time.perf_counter()
        while True:
            if not self.waiting and not self.running:
                self._news.clear()
                await self._news.wait()
                at = time.perf_counter()
            batch = self._admit()
            # From the last step's due time, so that a late wake-up here slows nothing down.
            at = max(at + self._seconds(batch), time.perf_counter() - 0.05)
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            for request in batch or self.running:
                self._token(request)
            self.running = [one for one in (*self.running, *batch) if not self._is_over(one)]

    def _admit(self) -> list[Asked]:
        room = min(self._slots - len(self.running), _CHUNK // _OWN)
        batch: list[Asked] = []
        while self.waiting and len(batch) < room:
            request = self.waiting.popleft()
            if not request.is_gone:
                batch.append(request)
        return batch

    def _seconds(self, batch: list[Asked]) -> float:
        if batch:
            return self._pace.prefill + len(batch) * _OWN * self._pace.prompt_token
        return self._pace.step + len(self.running) * self._pace.running

    def _token(self, request: Asked) -> None:
        request.made += 1
        if request.made == 1 or request.made % request.every == 0 or request.made == request.tokens:
            piece, request.sent = request.made - request.sent, request.made
            asyncio.get_running_loop().call_later(
                self._front(self._pace.event), request.pieces.put_nowait, piece
            )

    def _is_over(self, request: Asked) -> bool:
        over = request.is_gone or request.made >= request.tokens
        if over:
            self.known.pop(request.rid, None)
            asyncio.get_running_loop().call_later(self._front(0), request.pieces.put_nowait, None)
        return over


class Routes:
    """As much of SGLang's HTTP as the platform and the benchmark use."""

    def __init__(self, timetable: Timetable) -> None:
        self._timetable = timetable
        self._number = 0

    def app(self) -> web.Application:
        application = web.Application(client_max_size=2**24)
        application.add_routes(
            [
                web.get("/health", self._fine),
                web.get("/health_generate", self._fine),
                web.post("/flush_cache", self._fine),
                web.get("/v1/loads", self._loads),
                web.post("/v1/completions", self._complete),
                web.post("/abort_request", self._abort),
            ]
        )
        return application

    async def _fine(self, _request: web.Request) -> web.Response:
        return web.Response(text="")

    async def _loads(self, _request: web.Request) -> web.Response:
        table = self._timetable
        load = {"num_running_reqs": len(table.running), "num_waiting_reqs": len(table.waiting)}
        return web.json_response({"loads": [load]})

    async def _abort(self, request: web.Request) -> web.Response:
        self._timetable.abort(orjson.loads(await request.read()).get("rid", ""))
        return web.Response(text="")

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        self._number += 1
        streamed = bool(body.get("stream"))
        every = self._timetable.every if streamed else 50
        asked = Asked(body.get("rid") or str(self._number), body["max_tokens"], every)
        words = len(body["prompt"].split())
        response = web.StreamResponse()
        response.content_type = "text/event-stream" if streamed else "application/json"
        try:
            await self._timetable.tokenize(asked)
            if streamed:
                await response.prepare(request)
            while (piece := await asked.pieces.get()) is not None:
                if streamed:
                    await response.write(_event({"choices": [_choice(piece)]}))
            usage = _usage(words, asked)
            if streamed:
                await response.write(_event({"choices": [_choice(0, "length")], "usage": usage}))
                await response.write(b"data: [DONE]\n\n")
                return response
            return web.json_response({"choices": [_choice(asked.made, "length")], "usage": usage})
        finally:
            asked.is_gone = True


def _choice(tokens: int, reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "text": "word " * tokens, "finish_reason": reason}


def _usage(words: int, asked: Asked) -> dict[str, Any]:
    details = {"cached_tokens": max(0, words - _OWN)}
    return {"prompt_tokens": words, "completion_tokens": asked.made, "prompt_tokens_details": details}


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(document) + b"\n\n"


async def serve(given: argparse.Namespace) -> None:
    timetable = Timetable(PACES[given.model], slots=given.slots, every=given.stream_interval)
    runner = web.AppRunner(Routes(timetable).app(), handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", given.port, reuse_address=True, backlog=2048).start()
    await timetable.run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=sorted(PACES), default="8b")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=1024)
    parser.add_argument("--stream-interval", type=int, default=1)
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
