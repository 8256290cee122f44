"""Rates out of counters, and waits out of rates. Pure."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from models.waiting import Waiting
from queues.policy.forecast import seconds_until
from queues.policy.pressure import JUDGED, Pressure, Reading

_MEMORY: Final = 5.0  # seconds after which an old measurement counts for a third
# Of what starts. In five seconds a class of long answers starts a dozen, and their mean errs by a third.
_RATE_MEMORY: Final = 20.0
_CAPACITY_MEMORY: Final = 30.0
# Looks in a row at which a queue grew before it counts as growing: what came at once grew at one of them.
_STEADILY: Final = 3


@dataclass(frozen=True, slots=True)
class Meter:
    """The smoothed rates of one model and the counters at the last look. A value."""

    at: float | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)  # class → tokens a second that start
    seen: Mapping[str, float] = field(default_factory=dict)  # class → seconds that its rate was measured
    flows: Mapping[str, float] = field(default_factory=dict)  # the same, whether any waited or not
    arrivals: Mapping[str, float] = field(default_factory=dict)  # class → tokens a second that come
    waited: Mapping[str, int] = field(default_factory=dict)  # class → tokens at the last look
    grew: Mapping[str, tuple[float, ...]] = field(default_factory=dict)  # class → tokens a second, lately
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
        meter = replace(meter, at=look.at, counters=look.counters, waited=_tokens(look))
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
    flows, arrivals = _moved(meter, look, grown, elapsed)
    firsts = grown.get("firsts", 0)
    first_token = meter.first_token
    if firsts:
        first_token = _smooth(first_token, grown.get("first_ms", 0) / firsts / 1000, share)
    next_meter = Meter(
        at=look.at,
        counters=look.counters,
        rates=rates,
        seen=seen,
        flows=flows,
        arrivals=arrivals,
        waited=_tokens(look),
        grew=_grew(meter, look, elapsed),
        first_token=first_token,
        offered=_smooth(meter.offered, grown.get("offered", 0) / elapsed, share),
        per_slot=_per_slot(meter, look, grown, elapsed),
    )
    return next_meter, _pressure(next_meter, look)


def _tokens(look: Look) -> dict[str, int]:
    return {name: waiting.tokens for name, waiting in look.waiting.items()}


def _grew(meter: Meter, look: Look, elapsed: float) -> dict[str, tuple[float, ...]]:
    return {
        name: (*meter.grew.get(name, ()), (tokens - meter.waited.get(name, 0)) / elapsed)[-_STEADILY:]
        for name, tokens in _tokens(look).items()
    }


def _growing(meter: Meter, classes: Mapping[str, Reading]) -> float:
    found = [
        min(meter.grew[name]) / rate
        for name in JUDGED
        if len(meter.grew.get(name, ())) == _STEADILY and (rate := classes[name].rate)
    ]
    return max(0.0, *found) if found else 0.0


def _moved(
    meter: Meter, look: Look, grown: Mapping[str, int], elapsed: float
) -> tuple[dict[str, float], dict[str, float]]:
    """What started and what came of each class, a second: what is there more than before, came."""
    flows, arrivals = dict(meter.flows), dict(meter.arrivals)
    weight = 1 - math.exp(-elapsed / _RATE_MEMORY)
    for name, waiting in look.waiting.items():
        started = grown.get(f"started/{name}", 0)
        came = max(0, waiting.tokens - meter.waited.get(name, 0) + started)
        flows[name] = _smooth(flows.get(name), started / elapsed, weight)
        arrivals[name] = _smooth(arrivals.get(name), came / elapsed, weight)
    return flows, arrivals


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
    classes = {
        name: replace(one, wait=seconds_until(one.tokens, of=name, classes=classes))
        for name, one in classes.items()
    }
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
        growing=0.0 if is_stale else _growing(meter, classes),
        is_stale=is_stale,
    )


def _reading(name: str, waiting: Waiting, meter: Meter, look: Look, total: float) -> Reading:
    rate = meter.rates.get(name)
    # A class that only began to wait has no rate yet: its share of what the engines do, by weight.
    if waiting.jobs and not rate and total:
        active = sum(look.weights.get(other, 1.0) for other, w in look.waiting.items() if w.jobs)
        rate = total * look.weights.get(name, 1.0) / active
    return Reading(
        waiting.jobs,
        waiting.tokens,
        waiting.oldest,
        rate or None,
        flow=meter.flows.get(name),
        arrivals=meter.arrivals.get(name),
    )
