"""Scenarios: processes that are killed, paused and replaced, at random and at the message that matters."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tests.faults.proxy import Fault, Way
from tests.faults.stage import Act, until
from tests.faults.truth import Verdict, percentiles

# How a message looks on the wire: the class and the method of AMQP's frames, a statement, its completion.
PUBLISH: Final = b"\x00\x3c\x00\x28"
CONFIRM: Final = b"\x00\x3c\x00\x50"
COMMIT: Final = b"COMMIT"
COMMITTED: Final = b"COMMIT\x00"
_KILLS: Final = 20
_RECOVERED: Final = 15.0  # seconds from a kill to the first token of the last of its jobs


async def api_before_commit(act: Act) -> None:
    await _kill_at(act, "api", "postgresql", COMMIT, Way.ASK)


async def api_after_commit(act: Act) -> None:
    """Committed, but the client never hears of it: the same key must find the same jobs."""
    await _kill_at(act, "api", "postgresql", COMMITTED, Way.ANSWER)


async def relay_before_publish(act: Act) -> None:
    await _kill_at(act, "relay", "rabbitmq", PUBLISH, Way.ASK)


async def relay_before_release(act: Act) -> None:
    """Published and confirmed, and the relay never hears of it."""
    await _kill_at(act, "relay", "rabbitmq", CONFIRM, Way.ANSWER)


async def worker_before_commit(act: Act) -> None:
    await _kill_at(act, "worker", "postgresql", COMMIT, Way.ASK)


async def worker_after_commit(act: Act) -> None:
    """The result is recorded and its message not acknowledged: it comes again, and nothing is run."""
    await _kill_at(act, "worker", "postgresql", COMMITTED, Way.ANSWER)


async def _kill_at(act: Act, kind: str, service: str, pattern: bytes, way: Way) -> None:
    async with act.load(60):
        for _ in range(act.sized(3)):
            victim = await act.kill_at(kind, service, pattern, way)
            if kind == "worker":
                await act.hurts(time.time(), victim.pid)
            await act.pause(0.2, 1.0)
            act.fleet.start(victim.name)
            await act.fleet.until_ready()
            await act.finished(10)


async def worker_killed(act: Act) -> None:
    """In the middle of a full window of slow jobs."""
    async with act.load(60, "pace=60"):
        for _ in range(act.sized(4)):
            victim = act.rng.choice(act.fleet.workers())
            await act.pause(0.5, 2.0)
            await act.kill_worker(victim)
            act.fleet.start(victim.name)
            await act.fleet.until_ready()


async def recovery(act: Act) -> None:
    """Workers killed one after another, with the leases of production, each while the last ones recover."""
    async with act.load(40, "pace=150"):
        for turn in range(act.sized(24)):
            workers = act.fleet.workers()
            victim = workers[turn % len(workers)]
            await act.pause(0.5, 1.5)
            await act.kill_worker(victim)
            act.fleet.start(victim.name)
            await act.fleet.until_ready()
    act.expect(lambda verdict: _too_slow(verdict, kills=act.sized(_KILLS)))


def _too_slow(verdict: Verdict, *, kills: int) -> str | None:
    _, p95 = percentiles(verdict.recoveries)
    if len(verdict.recoveries) < kills:
        return f"{len(verdict.recoveries)} recoveries were seen, {kills} are to be"
    return f"recovery p95 is {p95:.1f} s, at most {_RECOVERED:.0f}" if p95 > _RECOVERED else None


async def worker_paused(act: Act) -> None:
    """Stopped past its lease and let go: its late results must be refused."""
    async with act.load(60, "pace=60"):
        for _ in range(act.sized(2)):
            victim = act.rng.choice(act.fleet.workers())
            await act.pause(0.5, 1.5)
            at = victim.kill(signal.SIGSTOP)
            await act.hurts(at, victim.pid)
            await asyncio.sleep(9)
            victim.kill(signal.SIGCONT)
            await act.finished(30)


async def worker_cut_off(act: Act) -> None:
    """Its database is a black hole for longer than its lease: its late results are refused."""
    async with act.load(60, "pace=60"):
        for _ in range(act.sized(2)):
            victim = act.rng.choice(act.fleet.workers())
            await act.pause(0.5, 1.5)
            await act.hurts(time.time(), victim.pid)
            victim.links["postgresql"].fail(Fault.BLACK_HOLE)
            await asyncio.sleep(9)
            victim.links["postgresql"].heal()
            await act.finished(30)


async def engine_killed(act: Act) -> None:
    async with act.load(60, "pace=25"):
        for _ in range(act.sized(3)):
            victim = act.rng.choice(act.fleet.workers())
            await act.pause(0.5, 1.5)
            if victim.engine is not None:
                ids = await act.stage.truth.running_on(victim.pid)
                act.hurt.append((victim.engine.kill(), ids))
            await act.finished(30)


async def upkeep_killed(act: Act) -> None:
    """With a worker, so that whoever leads next must reap."""
    async with act.load(60, "pace=60"):
        for name in ("upkeep-0", "upkeep-1")[: act.sized(2)]:
            victim = act.rng.choice(act.fleet.workers())
            await act.pause(0.5, 1.5)
            act.member(name).kill()
            await act.kill_worker(victim)
            await asyncio.sleep(2)
            act.fleet.start(name)
            act.fleet.start(victim.name)
            await act.fleet.until_ready()
            await act.finished(30)


async def rolling_restart(act: Act) -> None:
    """SIGTERM for one process after another: not one 5xx, and nothing short is run again."""
    names = list(act.fleet.members)
    act.rng.shuffle(names)
    async with act.load(60):
        for name in names:
            code = await act.fleet.terminate(name)
            if code:
                act.verdict.notes.append(f"{name} ended with {code} at SIGTERM")
            act.fleet.start(name)
            await act.fleet.until_ready()
    if act.client.server_errors:
        act.verdict.failures.append(f"5xx: {dict(act.client.answers)}")
    if act.client.breaks:
        act.verdict.notes.append(f"{act.client.breaks} connections ended under a request")
    act.expect(lambda verdict: f"{verdict.executed_again} were run again" if verdict.executed_again else None)


async def model_drained(act: Act) -> None:
    """What runs ends and nothing begins, not even on a worker that comes meanwhile; then all goes on."""
    async with act.load(60):
        await act.client.hold("drain")
        await until(lambda: _is_drained(act), 30, "a drained model")
        began = await act.stage.truth.starts()
        victim = act.rng.choice(act.fleet.workers())
        victim.kill()
        act.fleet.start(victim.name)
        await act.fleet.until_ready()
        await act.pause(1.0, 2.0)
        if late := await act.stage.truth.starts() - began:
            act.verdict.failures.append(f"{late} jobs began although the model was drained")
        await act.client.hold("resume")
        await act.finished(30)
    act.expect(lambda verdict: f"{verdict.executed_again} were run again" if verdict.executed_again else None)


async def _is_drained(act: Act) -> bool:
    return await act.client.model_state() == "drained"


async def bulk_of_twenty_thousand(act: Act) -> None:
    """A worker dies at one third, for good."""
    total = act.sized(20_000)
    submitted = asyncio.create_task(act.client.submit(total))
    await act.finished(total // 3, within=300)
    await act.kill_worker(act.member("worker-0"))
    act.fleet.start("worker-0")
    await submitted
    await act.all_finished(within=300)
    completed = await act.stage.truth.count(act.tenant, "completed")
    different = await act.stage.truth.distinct_outputs(act.tenant)
    if not completed == different == total:
        act.verdict.failures.append(f"{total} jobs: {completed} completed, {different} different results")


async def llamacpp_killed(act: Act) -> None:
    """The real engine, a child of its worker, which starts it again."""
    async with act.load(20, "where is my order A1001", max_tokens=48):
        for _ in range(act.sized(4)):
            victim = act.rng.choice(act.fleet.workers())
            await act.pause(1.0, 2.0)
            while not await act.stage.truth.running_on(victim.pid):  # noqa: ASYNC110 - it looks at a table
                await asyncio.sleep(0.01)
            act.hurt.append((_kill_children(victim.pid), []))
            await act.finished(30)


def _kill_children(parent: int) -> float:
    for task in Path(f"/proc/{parent}/task").iterdir():
        for child in (task / "children").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
    return time.time()
