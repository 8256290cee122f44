"""What callers get when more is asked than the engines can do, with the policy and without it.

Run: python -m benchmarks.overload [--seconds 60] [--quick] [--only compared|surge] [--simulated]
Open loop at 0.5, 1 and 3 times the measured capacity on real services with llama.cpp and the bundled model,
then at 10 times with the simulated engine. Exits non-zero where a figure falls short.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks import arms, measure
from benchmarks.measure import Figure, quantile
from benchmarks.overload_cpu import CpuShares
from benchmarks.overload_findings import (
    JUDGED,
    Phase,
    is_fault,
    is_imposed,
    is_unlabelled,
    is_without_retry_after,
)
from benchmarks.overload_load import Caller, watched
from benchmarks.overload_trace import TEMPLATES
from tests.platform import Platform, running_platform
from tests.services import open_services

SEED: Final = 11
MODEL: Final = "default"
_PROCESSES: Final = ("api", "relay", "upkeep", "worker")
_DEPTH: Final = 24  # jobs in the system while the capacity is measured: the slots, and a queue behind
# A quarter of four slots is one for premium, an eighth none.
_SLOTS: Final = 4
_RESERVED: Final = "0.25"
# How long callers of the surge would wait: the limits of interactive calls.
_LIMITS: Final = {"premium": 10_000, "standard": 30_000}
# Slots, and milliseconds to the first token and for each: about what llama.cpp does on two cores.
_SIMULATED_SLOTS: Final = 8
_SIMULATED: Final = (20.0, 5.0)


@dataclass
class Stage:
    """A running platform, seen by a caller and by an operator."""

    platform: Platform
    caller: Caller
    operator: httpx.Client
    memory: list[float] = field(default_factory=list)  # megabytes of all processes, once a second

    def level(self) -> int:
        found = self.operator.get("/v1/admin/degradation").raise_for_status().json()
        return int(next(one["level"] for one in found["models"] if one["model"] == MODEL))

    def changes(self) -> list[dict[str, Any]]:
        found = self.operator.get("/v1/admin/degradation").raise_for_status().json()
        return [one for one in found["changes"] if one["model"] == MODEL]

    def pin(self, level: int | None) -> None:
        path = f"/v1/admin/degradation/{MODEL}"
        if level is None:
            self.operator.delete(path).raise_for_status()
        else:
            self.operator.put(path, json={"level": level, "expires_in": "1h"}).raise_for_status()

    def weigh(self) -> None:
        pids = [process.pid for process in self.platform.processes.values()]
        self.memory.append(sum(measure.resident_mb(pid) for pid in pids))

    def dead(self) -> list[str]:
        return [name for name, process in self.platform.processes.items() if process.poll() is not None]


@contextmanager
def stage(
    folder: Path, *, policy: bool, simulated: bool = False, limits: dict[str, int] | None = None
) -> Iterator[Stage]:
    templates = folder / "templates.toml"
    templates.write_text(TEMPLATES)
    settings = {
        "OVERLOAD__ENABLED": str(policy).lower(),
        "OVERLOAD__TEMPLATES": str(templates),
        "LOG__LEVEL": "warning",
    }
    catalogue = folder / "models.toml"
    catalogue.write_text(arms.CATALOGUE.format(slots=_SLOTS))
    with open_services() as services:
        if simulated:
            environment = {f"PENSTOCK_{name}": value for name, value in settings.items()}
            with arms.penstock(
                services, folder, slots=_SIMULATED_SLOTS, latency=_SIMULATED, environment=environment
            ) as arm:
                assert arm.platform is not None  # noqa: S101 - it has just been started
                yield _stage(arm.platform, limits)
        else:
            settings |= {"CATALOGUE": str(catalogue), "ORDER__RESERVED_PREMIUM": _RESERVED}
            with running_platform(
                services, folder, processes=_PROCESSES, metrics=None, **settings
            ) as platform:
                yield _stage(platform, limits)


def _stage(platform: Platform, limits: dict[str, int] | None) -> Stage:
    caller = Caller(platform.url, platform.key("callers"), limits=limits)
    operator = platform.client(platform.key("operators", "--scope", "admin"))
    return Stage(platform, caller, operator)


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each part takes, in seconds."""

    seconds: float
    steady: float
    patience: float
    recovery: float
    factors: tuple[float, ...] = (0.5, 1.0, 3.0)


def phase(on: Stage, factor: float, capacity: float, plan: Plan) -> Phase:
    cpu = CpuShares({name: process.pid for name, process in on.platform.processes.items()})
    found: Phase = asyncio.run(
        on.caller.open_loop(
            f"{factor:g}x",
            rate=factor * capacity,
            seconds=plan.seconds,
            seed=SEED + int(10 * factor),
            patience=plan.patience,
            at_the_end=lambda: print(f"{factor:g}x {cpu.text()}", flush=True),
        )
    )
    tell(found, on)
    return found


def tell(found: Phase, on: Stage) -> None:
    waits = found.latencies(*JUDGED)
    levels = " ".join(f"{name} {share:.1%}" for name, share in found.shares().items())
    print(
        f"{found.name}: {len(found.found)} sent, answered {found.answered_share:.2%} ({levels}), "
        f"mean {sum(waits) / len(waits):.2f} s, p99 {quantile(waits, 99):.2f} s, "
        f"premium queue p99 {found.premium_wait(99) * 1000:.0f} ms, level {on.level()}",
        flush=True,
    )


def measured(on: Stage, plan: Plan) -> tuple[Phase, float]:
    """The capacity of whole answers, in jobs a second, and how true the estimated starts were meanwhile."""
    on.pin(0)
    found, capacity = asyncio.run(on.caller.backlog("steady", depth=_DEPTH, seconds=plan.steady, seed=SEED))
    on.pin(None)
    print(f"capacity {capacity:.2f} jobs/s", flush=True)
    return found, capacity


def compared(folder: Path, plan: Plan, *, simulated: bool) -> list[Figure]:
    """The trace with the policy and without it, on llama.cpp or, where CPUs are short, simulated."""
    with stage(_made(folder / "on"), policy=True, simulated=simulated) as on:
        steady, capacity = measured(on, plan)
        with_policy = {factor: phase(on, factor, capacity, plan) for factor in plan.factors}
    with stage(_made(folder / "off"), policy=False, simulated=simulated) as off:
        without = {factor: phase(off, factor, capacity, plan) for factor in plan.factors}
    engine = "simulated engine" if simulated else "llama.cpp"
    figures = [Figure(f"capacity, whole answers, {engine}", (capacity,), "jobs/s")]
    figures.append(
        Figure("long answers that were as long as asked", (100 * steady.length_share,), "%", at_least=99)
    )
    error = steady.start_error(after=steady.found[0].sent.moment + plan.steady / 3)
    figures.append(
        Figure(
            "estimated start, median error", (100 * (error if error is not None else 9.99),), "%", at_most=20
        )
    )
    for factor in plan.factors:
        figures += _compared(factor, with_policy[factor], without[factor])
    return figures


def _compared(factor: float, policy: Phase, none: Phase) -> list[Figure]:
    """The bounds are those of three times the capacity; what is unlabelled or imposed is never right."""
    at, bound = f"{factor:g}x", factor == 3.0
    ours, theirs = policy.latencies(*JUDGED), none.latencies(*JUDGED)
    slowest = quantile(ours, 99), quantile(theirs, 99)
    figures = [
        Figure(
            f"{at} answered, premium and standard",
            (100 * policy.answered_share,),
            "%",
            at_least=99.9 if bound else None,
        ),
        Figure(f"{at} mean", (sum(ours) / len(ours),), "s", at_most=1.5 if bound else None),
        Figure(
            f"{at} premium queue wait p99",
            (1000 * policy.premium_wait(99),),
            "ms",
            at_most=300 if bound else None,
        ),
        Figure(
            f"{at} premium queue wait p99, of those that were queued",
            (1000 * policy.premium_wait(99, queued=True),),
            "ms",
        ),
        Figure(f"{at} p99 with policy", (slowest[0],), "s"),
        Figure(f"{at} p99 without", (slowest[1],), "s"),
        Figure(f"{at} p99 with ÷ without", (slowest[0] / slowest[1],), "x", at_most=0.2 if bound else None),
        *_promises(at, policy),
    ]
    return figures + [Figure(f"{at} {name}", (100 * share,), "%") for name, share in policy.shares().items()]


def _promises(at: str, found: Phase) -> list[Figure]:
    return [
        Figure(f"{at} unlabelled answers", (found.count(is_unlabelled),), "", at_most=0),
        Figure(f"{at} levels that were refused", (found.count(is_imposed),), "", at_most=0),
        Figure(f"{at} faults", (found.count(is_fault),), "", at_most=0),
        Figure(f"{at} 429 without Retry-After", (found.count(is_without_retry_after),), "", at_most=0),
    ]


def surge(folder: Path, plan: Plan) -> list[Figure]:
    """Ten times the capacity of the simulated engine; then half of it, until the level is 0 and stays."""
    with stage(_made(folder / "surge"), policy=True, simulated=True, limits=_LIMITS) as on:
        _, capacity = measured(on, plan)
        work = on.caller.open_loop(
            "10x", rate=10 * capacity, seconds=plan.seconds, seed=SEED, patience=plan.patience
        )
        found: Phase = asyncio.run(watched(work, on.weigh))
        tell(found, on)
        back, changes = asyncio.run(_recovered(on, capacity, plan))
        dead = on.dead()
    turned_away = sum(one.sent.status == 429 for one in found.found)
    return [
        Figure("10x (simulated) capacity", (capacity,), "jobs/s"),
        Figure("10x (simulated) answered, premium and standard", (100 * found.answered_share,), "%"),
        Figure("10x (simulated) turned away", (turned_away,), ""),
        Figure("10x (simulated) premium queue wait p99", (1000 * found.premium_wait(99),), "ms"),
        *_promises("10x (simulated)", found),
        Figure("10x (simulated) processes that died", (len(dead),), "", at_most=0),
        Figure("10x (simulated) memory, end ÷ first quarter", (_growth(on.memory, plan),), "x", at_most=1.1),
        Figure("10x (simulated) back at level 0 after", (back,), "s", at_most=plan.recovery),
        Figure("10x (simulated) changes of level after that", (changes,), "", at_most=0),
    ]


def _growth(memory: list[float], plan: Plan) -> float:
    during = memory[: max(4, int(plan.seconds))]
    quarter = len(during) // 4
    return max(during[-quarter:]) / max(during[:quarter])


async def _recovered(on: Stage, capacity: float, plan: Plan) -> tuple[float, int]:
    """Seconds until level 0, and how often it changed later, under half the load for as long as the surge."""
    began = time.monotonic()
    while on.level() and time.monotonic() - began < plan.recovery:  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.5)
    took = time.monotonic() - began if not on.level() else float("inf")
    before = len(on.changes())
    await on.caller.open_loop(
        "after", rate=0.5 * capacity, seconds=plan.seconds, seed=SEED, patience=plan.patience
    )
    return took, len(on.changes()) - before


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> int:
    parser = measure.parser(__doc__, rounds=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each part of the trace")
    parser.add_argument("--quick", action="store_true", help="a quarter of the time, and 3x and 10x only")
    parser.add_argument("--only", choices=["compared", "surge"], help="one half")
    parser.add_argument("--simulated", action="store_true", help="the simulated engine throughout")
    given = parser.parse_args()
    length = given.seconds / 4 if given.quick else given.seconds
    plan = Plan(
        seconds=length,
        steady=max(40.0, 0.75 * length),
        patience=max(30.0, length),
        recovery=180.0,
        factors=(3.0,) if given.quick else (0.5, 1.0, 3.0),
    )
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder, measure.many_files(8192):
        if given.only in {None, "compared"}:
            figures += compared(Path(folder), plan, simulated=given.simulated)
        if given.only in {None, "surge"}:
            figures += surge(Path(folder), plan)
    title = "overload, simulated engine" if given.simulated else "overload"
    return measure.report(title, figures, to=given.json)


if __name__ == "__main__":
    sys.exit(main())
