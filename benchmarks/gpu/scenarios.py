"""What is measured: each scenario runs its arms one after another on the same requests."""

import argparse
import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import httpx

from benchmarks.gpu import bare
from benchmarks.gpu.bare import Bare, Result
from benchmarks.gpu.embedded import embedded
from benchmarks.gpu.log import Log
from benchmarks.gpu.place import options_of
from benchmarks.gpu.prompts import Request, Texts
from benchmarks.gpu.server import HEADERS, Place, Server, entry, serving
from benchmarks.gpu.spent import Spent
from benchmarks.gpu.watch import Watch, loads
from benchmarks.gpu.whole import Whole, whole
from benchmarks.measure import quantile
from tests.services import Services

_CANCELLED: Final = 100


@dataclass
class Bench:
    """Everything a scenario needs. `server` runs, or is starting."""

    place: Place
    model: Path
    texts: Texts
    services: Services
    folder: Path
    log: Log
    given: argparse.Namespace
    server: Server
    _number: int = 0

    @property
    def small(self) -> bool:
        return bool(self.given.small)

    def jobs(self, count: int) -> int:
        return max(8, count // 16) if self.small else count

    def slots(self, count: int) -> int:
        return max(2, count // 16) if self.small else count

    def next_folder(self) -> Path:
        self._number += 1
        return self.folder / f"platform{self._number}"

    def warm(self) -> Bare:
        """SGLang's kernels run once before anything is timed."""
        self.server.wait()
        one = Bare(self.server.url)
        requests = self.texts.grouped(1, self.jobs(512), shared=512, own=64, answer=16, seed=99)
        one.run(bare.all_at_once, requests)
        return one

    def whole(self, slots: int, *, workers: int = 1) -> Any:
        return whole(
            self.services, self.next_folder(), self.server.url, model=self.model, slots=slots, workers=workers
        )


def scenario_all(bench: Bench) -> None:
    """Tokens a second through the platform ÷ bare SGLang that gets everything at once."""
    bench.warm()
    slots = bench.slots(1024)
    bare_runs = _beside_bare(bench, slots, "all at once", seed=1)
    folder, requests = bench.next_folder(), _same(bench, bench.jobs(1024), seed=8)
    warming = _same(bench, bench.jobs(128), seed=54)
    _flush(bench)
    result = embedded(folder, bench.server.url, [warming, requests], model=bench.model, slots=slots)
    bench.log.add("all at once", f"embedded profile, {slots} slots", **result.document())
    _ratio(bench, "all at once", "embedded ÷ bare", [result], bare_runs[-1:])
    workers: int = bench.given.workers
    if workers > 1:
        with bench.whole(slots, workers=workers) as platform:
            platform.run(_same(bench, bench.jobs(128), seed=51))
            arm, count = f"whole, {workers} workers", bench.jobs(1024)
            again = [_watched(bench, platform, _same(bench, count, seed=6 + n), slots, arm) for n in range(2)]
        _ratio(bench, "all at once", f"whole with {workers} workers ÷ bare", again, bare_runs[-2:])


def _beside_bare(bench: Bench, slots: int, scenario: str, *, seed: int) -> list[Result]:
    """Bare, bare streamed, and whole, on the same requests in turn; the bare results."""
    engine = Bare(bench.server.url)
    found: dict[str, list[Result]] = {"bare": [], "streamed": [], "whole": []}
    with bench.whole(slots) as platform:
        platform.run(_same(bench, bench.jobs(128), seed=50))  # warm
        for number in range(bench.given.rounds):
            requests = _same(bench, bench.jobs(1024), seed=seed + number)
            order = ("bare", "whole") if number % 2 == 0 else ("whole", "bare")
            for arm in (*order, *(["streamed"] if number == 0 else [])):
                if arm == "whole":
                    result = _watched(
                        bench, platform, requests, slots, f"whole, {slots} slots", scenario=scenario
                    )
                else:
                    result = _bare(bench, engine, requests, slots, scenario, stream=arm == "streamed")
                found[arm].append(result)
    _ratio(bench, scenario, "whole ÷ bare", found["whole"], found["bare"])
    return found["bare"]


def scenario_slots(bench: Bench) -> None:
    """A server with a quarter of the slots, so that three quarters of the jobs wait for one."""
    bench.server.kill()
    time.sleep(1)  # the port
    slots = bench.slots(256)
    model = entry(bench.place, bench.model, running=slots, options=options_of(bench.given))
    with serving(model, bench.folder / "sglang-slots.log", place=bench.place) as server:
        bench.server = server
        bench.warm()
        _beside_bare(bench, slots, "slots", seed=11)


def scenario_one(bench: Bench) -> None:
    engine = bench.warm()
    result = engine.run(bare.one_at_a_time, _same(bench, bench.jobs(64) // 2, seed=20))
    bench.log.add("one at a time", "bare", **result.document())


def scenario_refill(bench: Bench) -> None:
    """32 at once, mixed answers: fixed batches, and refill by groups of several sizes."""
    engine = bench.warm()
    slots = bench.slots(32)
    requests = bench.texts.mixed(
        bench.jobs(512), shared=512, own=64, answers=(2, 16) if bench.small else (16, 240), seed=7
    )
    fixed = engine.run(bare.fixed_batches(slots), requests)
    bench.log.add("refill", f"bare, fixed batches of {slots}", **fixed.document())
    for group in (1, 8):
        if group < slots:
            result = engine.run(bare.refilled(slots, group), requests)
            ratio = round(result.tokens_per_second / fixed.tokens_per_second, 3)
            bench.log.add("refill", f"bare, groups of {group}", ratio_to_fixed=ratio, **result.document())
    with bench.whole(slots) as platform:
        platform.run(_same(bench, bench.jobs(64), seed=52))
        result = _watched(bench, platform, requests, slots, f"whole, {slots} slots", scenario="refill")
        ratio = round(result.tokens_per_second / fixed.tokens_per_second, 3)
        bench.log.add("refill", "whole ÷ fixed batches", ratio=ratio)


def scenario_cancel(bench: Bench) -> None:
    """From the request to cancel until the engine runs it no more."""
    bench.warm()
    count = bench.slots(_CANCELLED)
    requests = [
        Request(one.text, 6000, one.group)
        for one in bench.texts.grouped(1, count, shared=64, own=64, answer=6000, seed=30)
    ]
    with bench.whole(count) as platform:
        platform.run(_same(bench, bench.jobs(64), seed=53))
        for bulk in (False, True):
            seconds, answered = asyncio.run(_cancel_all(bench, platform, requests, bulk=bulk))
            bench.log.add(
                "cancel",
                f"{count} running jobs, {'one call for all' if bulk else 'a call for each, at once'}",
                p50_ms=round(quantile(seconds, 50) * 1000),
                p95_ms=round(quantile(seconds, 95) * 1000),
                most_ms=round(max(seconds) * 1000),
                answered_p95_ms=round(quantile(answered, 95) * 1000),
            )


async def _cancel_all(
    bench: Bench, platform: Whole, requests: list[Request], *, bulk: bool
) -> tuple[list[float], list[float]]:
    """Seconds from each call until a slot was free, and until it was answered."""
    ids = await platform.submit(requests)
    with httpx.Client(base_url=bench.server.url, headers=HEADERS) as asking:
        end = time.monotonic() + 60
        while await _runs(asking) < len(ids):
            if time.monotonic() > end:
                raise TimeoutError(f"{loads(asking)} of {len(ids)} run")
            await asyncio.sleep(0.05)
    await asyncio.sleep(1)  # what claiming them left to do is done
    asked: list[float] = []
    answered: list[float] = []
    headers = {"Authorization": f"Bearer {platform.key}"}
    with Watch(bench.server.url, every=0.01) as watch:
        async with aiohttp.ClientSession(platform.platform.url, headers=headers) as client:

            async def cancel(path: str, body: dict[str, Any] | None, jobs: int) -> None:
                began = time.time()
                asked.extend([began] * jobs)
                async with client.post(path, json=body) as answer:
                    if answer.status not in {200, 202}:
                        raise RuntimeError(f"{answer.status}: {await answer.text()}")
                answered.extend([time.time() - began] * jobs)

            if bulk:
                await cancel("/v1/jobs/bulk/cancel", {"ids": ids}, len(ids))
            else:
                await asyncio.gather(*(cancel(f"/v1/jobs/{job_id}/cancel", None, 1) for job_id in ids))
        await platform.ended(ids, within=60)
        end = time.monotonic() + 30
        while watch.running[-1][1] and time.monotonic() < end:  # noqa: ASYNC110 - a foreign process
            await asyncio.sleep(0.02)
    return _freed(sorted(asked), watch.running), answered


def _freed(asked: list[float], running: list[tuple[float, int]]) -> list[float]:
    """The k-th request to cancel beside the moment when k of them had left the engine."""
    seconds = []
    for number, at in enumerate(asked):
        left = len(asked) - number - 1
        freed = next((when for when, count in running if when >= at and count <= left), float("inf"))
        seconds.append(freed - at)
    return seconds


def scenario_prefix(bench: Bench) -> None:
    """Prefixes three times the KV pool: the platform's order beside arrival order, and without sharing."""
    bench.server.kill()
    groups, each = bench.slots(64), 6
    shared = 256 if bench.small else 4096
    pool = groups * (shared + 8) // 3
    slots = bench.slots(32)
    time.sleep(1)  # the port
    options = options_of(bench.given)
    model = entry(bench.place, bench.model, running=64, kv_tokens=max(pool, 2048), options=options)
    with serving(model, bench.folder / "sglang-small-pool.log", place=bench.place) as server:
        bench.server = server
        with bench.whole(slots) as platform:
            platform.run(_same(bench, bench.jobs(64), seed=54))
            requests = bench.texts.grouped(groups, each, shared=shared, own=32, answer=16, seed=40)
            arrival = _watched(bench, platform, requests, slots, "arrival order", scenario="prefix")
            again = bench.texts.grouped(groups, each, shared=shared, own=32, answer=16, seed=41)
            ordered = _watched(bench, platform, again, slots, "prefix order", scenario="prefix", named=True)
            _ratio(bench, "prefix", "prefix order ÷ arrival order", [ordered], [arrival])
            apart = bench.texts.grouped(bench.jobs(160), 1, shared=shared, own=32, answer=16, seed=42)
            alone = _watched(bench, platform, apart, slots, "no sharing, no names", scenario="prefix")
            apart = bench.texts.grouped(bench.jobs(160), 1, shared=shared, own=32, answer=16, seed=43)
            named = _watched(
                bench, platform, apart, slots, "no sharing, named", scenario="prefix", named=True
            )
            _ratio(bench, "prefix", "no sharing: named ÷ not", [named], [alone])


def scenario_kill(bench: Bench) -> None:
    """SGLang is killed under load and started again: every job completes, none twice."""
    if bench.server.url and not bench.server.is_up:
        bench.server.launch()
    bench.warm()
    slots = bench.slots(256)
    requests = _same(bench, bench.jobs(1024), seed=60)
    with bench.whole(slots) as platform:
        asyncio.run(_killed(bench, platform, requests))


async def _killed(bench: Bench, platform: Whole, requests: list[Request]) -> None:
    began = time.time()
    ids = await platform.submit(requests)
    with httpx.Client(base_url=bench.server.url, headers=HEADERS) as asking:
        while await _runs(asking) == 0 and time.time() < began + 30:  # noqa: ASYNC110 - likewise
            await asyncio.sleep(0.01)
    bench.server.kill()
    killed = time.time()
    bench.server.launch()
    await asyncio.to_thread(bench.server.wait)
    back = time.time()
    rows = await platform.ended(ids)
    statuses = sorted({row["status"] for row in rows})
    bench.log.add(
        "kill",
        "SGLang killed under load",
        jobs=len(ids),
        results=len(rows),
        completed=sum(row["status"] == "completed" for row in rows),
        statuses=statuses,
        results_twice=len(rows) - len({row["id"] for row in rows}),
        run_again=sum(row["attempt"] > 1 for row in rows),
        down_seconds=round(back - killed, 1),
        seconds_after_it_was_back=round(max(row["at"] for row in rows) - back, 1),
    )


def _same(bench: Bench, count: int, *, seed: int) -> list[Request]:
    """One beginning of 512 tokens, 64 of each prompt's own, answers of 128."""
    return bench.texts.grouped(1, count, shared=512, own=64, answer=8 if bench.small else 128, seed=seed)


def _bare(
    bench: Bench, engine: Bare, requests: list[Request], slots: int, scenario: str, *, stream: bool
) -> Result:
    spent = Spent()
    with Watch(bench.server.url) as watch:
        spent.start()
        result = engine.run(bare.all_at_once, requests, stream=stream)
    arm = "bare, streamed" if stream else "bare"
    seen = watch.document(min(slots, len(requests)))
    bench.log.add(scenario, arm, **result.document(), **seen, cores=spent.cores(), running=watch.course())
    return result


def _flush(bench: Bench) -> None:
    httpx.post(f"{bench.server.url}/flush_cache", headers=HEADERS)


def _watched(
    bench: Bench,
    platform: Whole,
    requests: list[Request],
    slots: int,
    arm: str,
    *,
    scenario: str = "all at once",
    named: bool = False,
) -> Result:
    _flush(bench)
    spent = Spent()
    with Watch(bench.server.url) as watch:
        spent.start()
        course = platform.run(requests, named=named)
    slots = min(slots, len(requests))
    seen = watch.document(slots, backlog=course.backlog(slots))
    profile = {"cores": spent.cores(), "seconds_to": course.document(), "running": watch.course()}
    bench.log.add(scenario, arm, **course.result.document(), **seen, **profile)
    return course.result


def _ratio(bench: Bench, scenario: str, arm: str, ours: list[Result], theirs: list[Result]) -> None:
    ratios = [round(a.tokens_per_second / b.tokens_per_second, 3) for a, b in zip(ours, theirs, strict=True)]
    bench.log.add(scenario, arm, ratios=ratios)


async def _runs(asking: httpx.Client) -> int:
    return (await asyncio.to_thread(loads, asking))[0]
