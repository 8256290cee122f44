"""HTTP load on loopback: so many clients in a closed loop, or so many requests a second, come what may."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import aiohttp

Client = TypeVar("Client")
Call = Callable[[aiohttp.ClientSession, int], Awaitable[Any]]

_PATIENCE: Final = aiohttp.ClientTimeout(total=120)


@dataclass(slots=True)
class Outcome:
    """Seconds of each request, what each returned, and the time of it all."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.latencies) / self.seconds


def session(url: str, key: str | None, *, connections: int) -> aiohttp.ClientSession:
    # Rivals compress nothing, and what compression costs has a benchmark of its own.
    headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
    connector = aiohttp.TCPConnector(limit=connections)
    return aiohttp.ClientSession(url, headers=headers, connector=connector, timeout=_PATIENCE)


async def closed_loop(
    client: Client, call: Callable[[Client, int], Awaitable[Any]], *, clients: int, requests: int
) -> Outcome:
    """Each client sends its next request when it has the answer to the last."""
    outcome = Outcome()
    numbers = iter(range(requests))

    async def one() -> None:
        for number in numbers:
            await _timed(client, call, number, outcome)

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(clients)))
    outcome.seconds = time.perf_counter() - began
    return outcome


async def open_loop(
    client: Client, call: Callable[[Client, int], Awaitable[Any]], *, rate: float, requests: int
) -> Outcome:
    """Requests leave at their times, so a slow server cannot slow down what measures it."""
    outcome = Outcome()
    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(requests):
            await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
            tasks.create_task(_timed(client, call, number, outcome))
    outcome.seconds = time.perf_counter() - began
    return outcome


async def _timed(
    client: Client, call: Callable[[Client, int], Awaitable[Any]], number: int, outcome: Outcome
) -> None:
    began = time.perf_counter()
    outcome.answers.append(await call(client, number))
    outcome.latencies.append(time.perf_counter() - began)


def submit(*, max_tokens: int, **fields: Any) -> Call:
    """`POST /v1/jobs`; returns the job's id. Any answer but 202 ends the benchmark."""

    async def call(client: aiohttp.ClientSession, number: int) -> str:
        body = {
            "messages": [{"role": "user", "content": f"where is my order A{1000 + number}"}],
            "max_tokens": max_tokens,
            **fields,
        }
        async with client.post("/v1/jobs", json=body) as answer:
            document = await answer.json()
            if answer.status != 202:
                raise RuntimeError(f"{answer.status}: {document}")
            return str(document["id"])

    return call
