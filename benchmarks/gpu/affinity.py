"""Whether a prefix should have a home: two SGLang servers, a card each, fed with and without one.

Run: python -m benchmarks.gpu.affinity --prefix PREFIX --stream-interval 16 --json affinity.json
Prefixes three times the KV pool of one card. Jobs go out in the platform's own order, a prefix together, or
as they arrive; each server gets groups of eight as its slots come free: from one queue, or from its own.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import aiohttp

from benchmarks.gpu.bare import Result, ask, total
from benchmarks.gpu.checkpoint import make
from benchmarks.gpu.log import Log, the_gpu
from benchmarks.gpu.place import add_place, options_of, place_of
from benchmarks.gpu.prompts import Request, Texts
from benchmarks.gpu.server import HEADERS, Server, entry
from benchmarks.measure import machine

_SLOTS: Final = 32
_GROUP: Final = 8
_GROUPS: Final = 64
_SHARED: Final = 4096
_EACH: Final = 6
_WANTED: Final = 1.15

Queues = Sequence[deque[Request]]


def main() -> int:
    given = _arguments()
    log = Log(given.json, facts={"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()})
    log.facts |= {"model": given.model, "command": " ".join(sys.argv[1:]), "gpu": the_gpu()}
    folder = Path(tempfile.mkdtemp(prefix="penstock-affinity-"))
    model = make(given.model, folder / "model")
    texts = Texts(model)
    with ExitStack() as stack:
        servers = [_server(given, model, folder, number) for number in range(2)]
        for server in servers:
            stack.callback(server.kill)
            server.launch()
        for server in servers:
            server.wait()
        urls = [server.url for server in servers]
        _run(urls, texts.grouped(4, 16, shared=512, own=32, answer=16, seed=1), homes=False)  # warm
        for name, ordered in (("a prefix together", True), ("as they arrive", False)):
            _compare(log, urls, texts, name, ordered=ordered, seed=70 if ordered else 80, rounds=given.rounds)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_place(parser)
    parser.add_argument("--rounds", type=int, choices=(1, 2), default=2, help="of each arm (default 2)")
    parser.add_argument("--json", type=Path, default=Path("affinity.json"))
    return parser.parse_args()


def _server(given: argparse.Namespace, model: Path, folder: Path, number: int) -> Server:
    place = replace(place_of(given), port=30_111 + number)
    pool = _GROUPS * (_SHARED + 8) // 3
    options = {"running": 64, "kv_tokens": pool, "options": options_of(given)}
    more = {"gpu": str(number)} if place.device == "cuda" else {}
    return Server(entry(place, model, **options, **more), folder / f"sglang{number}.log", place)


def _compare(
    log: Log, urls: Sequence[str], texts: Texts, name: str, *, ordered: bool, seed: int, rounds: int
) -> None:
    rates: dict[bool, list[float]] = {False: [], True: []}
    for number, homes in enumerate((False, True, True, False)[: 2 * rounds]):
        requests = texts.grouped(_GROUPS, _EACH, shared=_SHARED, own=32, answer=16, seed=seed + number)
        if ordered:
            first = {request.group: at for at, request in reversed(list(enumerate(requests)))}
            requests.sort(key=lambda request: first[request.group])
        result = _run(urls, requests, homes=homes)
        rates[homes].append(result.tokens_per_second)
        log.add(
            "affinity", f"{name}, {'a home for each prefix' if homes else 'any server'}", **result.document()
        )
    ratio = sum(rates[True]) / sum(rates[False])
    log.add("affinity", f"{name}: homes ÷ any server", ratio=round(ratio, 3), wanted=_WANTED)


def _run(urls: Sequence[str], requests: Sequence[Request], *, homes: bool) -> Result:
    return asyncio.run(_serve(urls, requests, homes=homes))


async def _serve(urls: Sequence[str], requests: Sequence[Request], *, homes: bool) -> Result:
    async with aiohttp.ClientSession(
        headers=HEADERS, connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=600)
    ) as client:
        for url in urls:
            async with client.post(f"{url}/flush_cache") as answer:
                await answer.read()
        began = time.perf_counter()
        queues = _queues(requests, len(urls), homes=homes)
        usages = await asyncio.gather(
            *(_feed(client, url, queue) for url, queue in zip(urls, queues, strict=True))
        )
        return total([one for some in usages for one in some], time.perf_counter() - began)


def _queues(requests: Sequence[Request], servers: int, *, homes: bool) -> Queues:
    if not homes:
        shared = deque(requests)
        return [shared] * servers
    queues: list[deque[Request]] = [deque() for _ in range(servers)]
    for request in requests:
        queues[crc32(request.group.encode()) % servers].append(request)
    return queues


async def _feed(client: aiohttp.ClientSession, url: str, queue: deque[Request]) -> list[dict[str, Any]]:
    """As a worker does: groups of eight while more wait than fit."""
    usages: list[dict[str, Any]] = []
    running: set[asyncio.Task[dict[str, Any]]] = set()
    while queue or running:
        free = _SLOTS - len(running)
        if free >= min(_GROUP, len(queue)) or not running:
            for _ in range(min(len(queue), free)):
                running.add(asyncio.create_task(ask(client, queue.popleft(), url=url)))
        ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        usages += [one.result() for one in ended]
    return usages


if __name__ == "__main__":
    sys.exit(main())
