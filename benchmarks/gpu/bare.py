"""SGLang by itself, fed in several ways over its own HTTP routes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from benchmarks.gpu.prompts import Request
from benchmarks.gpu.server import HEADERS

_PATIENCE: Final = aiohttp.ClientTimeout(total=600)
Ask = Callable[[Request], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Result:
    """Jobs, seconds from the first request to the last answer, and tokens as the engine counts them."""

    jobs: int
    seconds: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    @property
    def tokens_per_second(self) -> float:
        return self.completion_tokens / self.seconds

    def document(self) -> dict[str, float]:
        return {
            "jobs": self.jobs,
            "seconds": round(self.seconds, 3),
            "jobs_per_second": round(self.jobs / self.seconds, 2),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "prompt_tokens": self.prompt_tokens,
            "cached_share": round(self.cached_tokens / max(1, self.prompt_tokens), 4),
            "completion_tokens": self.completion_tokens,
        }


def total(usages: Sequence[dict[str, Any]], seconds: float) -> Result:
    cached = [(usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0 for usage in usages]
    return Result(
        len(usages),
        seconds,
        sum(usage["prompt_tokens"] for usage in usages),
        sum(cached),
        sum(usage["completion_tokens"] for usage in usages),
    )


class Bare:
    """One client of the server."""

    def __init__(self, url: str) -> None:
        self._url = url

    def run(self, feed: "Feed", requests: Sequence[Request], *, stream: bool = False) -> Result:
        return asyncio.run(self._run(feed, requests, stream=stream))

    async def _run(self, feed: "Feed", requests: Sequence[Request], *, stream: bool) -> Result:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            self._url, headers=HEADERS, connector=connector, timeout=_PATIENCE
        ) as client:
            async with client.post("/flush_cache") as answer:
                await answer.read()

            async def send(request: Request) -> dict[str, Any]:
                return await (_streamed if stream else ask)(client, request)

            began = time.perf_counter()
            usages = await feed(send, requests)
            return total(usages, time.perf_counter() - began)


Feed = Callable[[Ask, Sequence[Request]], Awaitable[list[dict[str, Any]]]]


async def all_at_once(send: Ask, requests: Sequence[Request]) -> list[dict[str, Any]]:
    return await asyncio.gather(*map(send, requests))


async def one_at_a_time(send: Ask, requests: Sequence[Request]) -> list[dict[str, Any]]:
    return [await send(request) for request in requests]


def fixed_batches(size: int) -> Feed:
    """The baseline: the next batch waits for the longest answer of this one."""

    async def feed(send: Ask, requests: Sequence[Request]) -> list[dict[str, Any]]:
        usages: list[dict[str, Any]] = []
        for start in range(0, len(requests), size):
            usages += await asyncio.gather(*map(send, requests[start : start + size]))
        return usages

    return feed


def refilled(slots: int, group: int) -> Feed:
    """So many at once; as soon as `group` of them are free, so many follow together."""

    async def feed(send: Ask, requests: Sequence[Request]) -> list[dict[str, Any]]:
        usages: list[dict[str, Any]] = []
        waiting, running = list(reversed(requests)), set()
        while waiting or running:
            if slots - len(running) >= group or not running:
                for _ in range(min(len(waiting), slots - len(running))):
                    running.add(asyncio.ensure_future(send(waiting.pop())))
            ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            usages += [one.result() for one in ended]
        return usages

    return feed


def _body(request: Request, **more: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": request.text, "max_tokens": request.max_tokens, "temperature": 0} | more


async def ask(client: aiohttp.ClientSession, request: Request, *, url: str = "") -> dict[str, Any]:
    """Its usage. `url` where the session has none."""
    async with client.post(f"{url}/v1/completions", json=_body(request)) as answer:
        document = orjson.loads(await answer.read())
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {document}")
        usage: dict[str, Any] = document["usage"]
        return usage


async def _streamed(client: aiohttp.ClientSession, request: Request) -> dict[str, Any]:
    body = _body(request, stream=True, stream_options={"include_usage": True})
    last = b""
    async with client.post("/v1/completions", json=body) as answer:
        async for line in answer.content:
            if b'"usage":{' in line:
                last = line
    usage: dict[str, Any] = orjson.loads(last.removeprefix(b"data: "))["usage"]
    return usage
