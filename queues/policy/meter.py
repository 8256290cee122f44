"""Rates out of counters, and waits out of rates. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from models.waiting import Waiting
from queues.policy.pressure import Pressure, Reading

_MEMORY: Final = 5.0  # seconds after which an old measurement counts for a third
# Of what starts. In five seconds a class of long answers starts a dozen, and their mean errs by a third.
_RATE_MEMORY: Final = 20.0
_CAPACITY_MEMORY: Final = 30.0


@dataclass(frozen=True, slots=True)
class Meter:
    """The smoothed rates of one model and the counters at the last look. A value."""

    at: float | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)  # class → tokens a second that start
    seen: Mapping[str, float] = field(default_factory=dict)  # class → seconds that its rate was measured
    first_token: float | None = None
    offered: float | None = None
    per_slot: float | None = None  # tokens a second and slot, of whole answers


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at one moment. `counters` only grow, unless Redis lost them."""

    at: float
    slots: int
    running: int
    waiting: Mapping[str, Waiting]
    counters: Mapping[str, int] | None
    is_whole: bool  # level 0: every answer is what was asked
    weights: Mapping[str, float] = field(default_factory=dict)
    gpu: float | None = None
    kv: float | None = None


def measure(meter: Meter, look: Look) -> tuple[Meter, Pressure]:
    if look.counters is None:
        return meter, _pressure(meter, look, is_stale=True)
    if meter.at is None or look.at <= meter.at:
        meter = replace(meter, at=look.at, counters=look.counters)
        return meter, _pressure(meter, look)
    elapsed = look.at - meter.at
    grown = {name: max(0, n - meter.counters.get(name, 0)) for name, n in look.counters.items()}
    share = 1 - math.exp(-elapsed / _MEMORY)
    rates, seen = dict(meter.rates), dict(meter.seen)
    for name, waiting in look.waiting.items():
        if waiting.jobs:  # without a backlog starts measure the demand, and the last rate stands
            seen[name] = seen.get(name, 0.0) + elapsed
            # At first the plain mean: a first reading that is off would be believed for long.
            weight = max(1 - math.exp(-elapsed / _RATE_MEMORY), elapsed / seen[name])
            rates[name] = _smooth(rates.get(name), grown.get(f"started/{name}", 0) / elapsed, weight)
    firsts = grown.get("firsts", 0)
    first_token = meter.first_token
    if firsts:
        first_token = _smooth(first_token, grown.get("first_ms", 0) / firsts / 1000, share)
    next_meter = Meter(
        at=look.at,
        counters=look.counters,
        rates=rates,
        seen=seen,
        first_token=first_token,
        offered=_smooth(meter.offered, grown.get("offered", 0) / elapsed, share),
        per_slot=_per_slot(meter, look, grown, elapsed),
    )
    return next_meter, _pressure(next_meter, look)


def _smooth(known: float | None, latest: float, share: float) -> float:
    return latest if known is None else known + share * (latest - known)


def _per_slot(meter: Meter, look: Look, grown: Mapping[str, int], elapsed: float) -> float | None:
    """What a slot does while none has to wait for work, and all answers are whole.

    A full engine is no proof: right after a group began it always is, and its mean would be twice the truth.
    """
    has_backlog = look.slots and sum(w.jobs for w in look.waiting.values()) > look.slots
    if not (look.is_whole and has_backlog):
        return meter.per_slot
    started = sum(n for name, n in grown.items() if name.startswith("started/"))
    return _smooth(meter.per_slot, started / elapsed / look.slots, 1 - math.exp(-elapsed / _CAPACITY_MEMORY))


def _pressure(meter: Meter, look: Look, *, is_stale: bool = False) -> Pressure:
    total = sum(meter.rates.get(name, 0.0) for name, w in look.waiting.items() if w.jobs)
    classes = {name: _reading(name, waiting, meter, look, total) for name, waiting in look.waiting.items()}
    return Pressure(
        at=look.at,
        slots=look.slots,
        running=look.running,
        classes=classes,
        first_token=meter.first_token,
        offered=meter.offered,
        capacity=meter.per_slot * look.slots if meter.per_slot else None,
        gpu=look.gpu,
        kv=look.kv,
        is_stale=is_stale,
    )


def _reading(name: str, waiting: Waiting, meter: Meter, look: Look, total: float) -> Reading:
    rate = meter.rates.get(name)
    # A class that only began to wait has no rate yet: its share of what the engines do, by weight.
    if waiting.jobs and not rate and total:
        active = sum(look.weights.get(other, 1.0) for other, w in look.waiting.items() if w.jobs)
        rate = total * look.weights.get(name, 1.0) / active
    wait = 0.0 if not waiting.jobs else None
    if waiting.jobs and rate:
        wait = waiting.tokens / rate
    return Reading(waiting.jobs, waiting.tokens, waiting.oldest, rate or None, wait)
