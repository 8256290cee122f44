"""Sends a trace in an open loop, keeps a constant backlog in a closed one, and reads what became of it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import aiohttp

from benchmarks.load import session
from benchmarks.overload_findings import Found, Phase, Sent
from benchmarks.overload_trace import Ask, trace

_ENDED: Final = frozenset({"completed", "failed", "cancelled", "expired"})
_CONNECTIONS: Final = 400
_LOOK: Final = 0.5  # seconds
_PATIENCE: Final = 60.0  # seconds, for what is left of the backlog


class Caller:
    """One key's view of the platform. `limits`: how long each class may wait, in milliseconds."""

    def __init__(self, url: str, key: str, *, limits: dict[str, int] | None = None) -> None:
        self._url = url
        self._key = key
        self._limits = limits or {}

    async def open_loop(
        self,
        name: str,
        *,
        rate: float,
        seconds: float,
        seed: int,
        patience: float,
        at_the_end: Callable[[], None] | None = None,
    ) -> Phase:
        """The trace at its times, then up to `patience` seconds for what is not finished.

        `at_the_end` is called between the two.
        """
        async with session(self._url, self._key, connections=_CONNECTIONS) as client:
            began = time.perf_counter()
            tasks = []
            for ask in trace(rate=rate, seconds=seconds, seed=seed):
                await asyncio.sleep(max(0.0, began + ask.at - time.perf_counter()))
                tasks.append(asyncio.create_task(self._send(client, ask, name)))
            sent = await asyncio.gather(*tasks)
            await asyncio.sleep(max(0.0, began + seconds - time.perf_counter()))
            if at_the_end is not None:
                at_the_end()
            jobs = await self._until_finished(client, name, sent, patience)
        return Phase(name, [Found(one, jobs.get(one.job_id or "")) for one in sent], time.time())

    async def backlog(self, name: str, *, depth: int, seconds: float, seed: int) -> tuple[Phase, float]:
        """So many standard jobs in the system all the time; and how many a second ended meanwhile."""
        asks = iter(
            [ask for ask in trace(rate=1000.0, seconds=60.0, seed=seed) if ask.service_class == "standard"]
        )
        sent: list[Sent] = []
        async with session(self._url, self._key, connections=_CONNECTIONS) as client:
            end = time.monotonic() + seconds
            began = time.time()
            await asyncio.gather(
                *(self._one_after_another(client, asks, name, sent, end) for _ in range(depth))
            )
            until = time.time()
            jobs = await self._until_finished(client, name, sent, _PATIENCE)
        found = [Found(one, jobs.get(one.job_id or "")) for one in sent]
        return Phase(name, found, until), _rate(found, began, until)

    async def _one_after_another(
        self, client: aiohttp.ClientSession, asks: Iterator[Ask], name: str, sent: list[Sent], end: float
    ) -> None:
        for ask in asks:
            if time.monotonic() >= end:
                return
            one = await self._send(client, ask, name)
            sent.append(one)
            while one.job_id is not None and (left := end - time.monotonic()) > 0:
                async with client.get(
                    f"/v1/jobs/{one.job_id}", params={"wait": max(1, min(30, int(left)))}
                ) as answer:
                    if (await answer.json()).get("status") in _ENDED:
                        break

    async def _send(self, client: aiohttp.ClientSession, ask: Ask, name: str) -> Sent:
        body = ask.body(tag=name, max_wait_ms=self._limits.get(ask.service_class))
        moment, began = time.time(), time.perf_counter()
        try:
            async with client.post("/v1/jobs", json=body) as answer:
                document = await answer.json()
        except aiohttp.ClientError:
            return Sent(ask, moment, time.perf_counter() - began, 0)
        took = time.perf_counter() - began
        promised = (document.get("queue") or {}).get("estimated_start_at")
        return Sent(
            ask,
            moment,
            took,
            answer.status,
            job_id=document.get("id"),
            level_header=answer.headers.get("X-Degradation-Level"),
            retry_after=answer.headers.get("Retry-After"),
            code=document.get("code"),
            promised=datetime.fromisoformat(promised) if promised else None,
        )

    async def _until_finished(
        self, client: aiohttp.ClientSession, name: str, sent: list[Sent], patience: float
    ) -> dict[str, dict[str, Any]]:
        """Bulk may go on: it waits by its nature, and nobody judges how long."""
        judged = {one.job_id for one in sent if one.job_id and one.ask.service_class != "bulk"}
        end = time.monotonic() + patience
        while time.monotonic() < end:
            open_jobs = {job["id"] async for job in _pages(client, tag=name, status="queued")}
            open_jobs |= {job["id"] async for job in _pages(client, tag=name, status="running")}
            if not open_jobs & judged:
                break
            await asyncio.sleep(_LOOK)
        return await self._read(client, name)

    async def _read(self, client: aiohttp.ClientSession, name: str) -> dict[str, dict[str, Any]]:
        return {job["id"]: job async for job in _pages(client, tag=name)}


async def _pages(client: aiohttp.ClientSession, **wanted: str) -> Any:
    after: dict[str, str] = {}
    while True:
        async with client.get("/v1/jobs", params={"limit": "100", **wanted, **after}) as answer:
            page = await answer.json()
        for job in page["data"]:
            yield job
        if not page["has_more"]:
            return
        after = {"after": page["last_id"]}


def _rate(found: list[Found], began: float, until: float) -> float:
    """Jobs a second that ended in the later two thirds, when the backlog stood."""
    start = began + (until - began) / 3
    ended = [
        moment
        for one in found
        if one.job is not None
        and one.is_answered
        and start <= (moment := datetime.fromisoformat(one.job["finished_at"]).timestamp()) <= until
    ]
    return len(ended) / (until - start)


async def watched(work: Any, look: Callable[[], None], *, every: float = 1.0) -> Any:
    """Calls `look` all the time while the work is under way."""

    async def again() -> None:
        while True:
            look()
            await asyncio.sleep(every)

    task = asyncio.create_task(again())
    try:
        return await work
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
