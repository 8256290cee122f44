"""From pressure to a level: ordered rules, a dwell before each step up, and calm before each step down.

The first rule that presses hardest names the reason. Pure.
"""

from dataclasses import dataclass, replace
from typing import Final, Protocol

from core.overload_settings import OverloadSettings
from models.degradation import Level
from models.service_class import ServiceClass
from queues.policy.pressure import Pressure
from queues.policy.state import State

_TWICE: Final = 2.0
_FOUR_TIMES: Final = 4.0
_ROOM: Final = 0.9  # of the capacity: what is asked must fit with some to spare
_RELAPSE: Final = 30.0  # seconds: a lower level that lasted less did not last
_MOST_RELAPSES: Final = 6


class Rule(Protocol):
    """`strain` is 1 where level 1 begins; None where the pressure does not say."""

    @property
    def name(self) -> str: ...

    def strain(self, pressure: Pressure) -> tuple[float, str] | None: ...


@dataclass(frozen=True, slots=True)
class Waiting:
    """Too many wait beyond the slots."""

    limit: int
    name: str = "waiting"

    def strain(self, pressure: Pressure) -> tuple[float, str] | None:
        reason = f"{pressure.beyond} waiting beyond {pressure.slots} slots; the limit is {self.limit}"
        return pressure.beyond / self.limit, reason


@dataclass(frozen=True, slots=True)
class SlowStart:
    """Answers begin too late. An old mean says nothing once nobody waits."""

    limit: float
    name: str = "first_token"

    def strain(self, pressure: Pressure) -> tuple[float, str] | None:
        if pressure.first_token is None or pressure.beyond == 0:
            return None
        reason = f"mean time to the first token {pressure.first_token:.1f} s; the limit is {self.limit:g} s"
        return pressure.first_token / self.limit, reason


@dataclass(frozen=True, slots=True)
class LongWait:
    """What comes now would begin too late, whatever those that began lately had to wait.

    Fewer than there are slots are no queue: while a class has one or two waiting, what of it starts is what
    comes, and a rate out of that predicts seconds for a job that begins at once.
    """

    limit: float
    name: str = "predicted_wait"

    def strain(self, pressure: Pressure) -> tuple[float, str] | None:
        if pressure.beyond == 0 or pressure.beyond < pressure.slots:
            return None
        reason = f"predicted wait {pressure.growth:.1f} s; the limit is {self.limit:g} s"
        return pressure.growth / self.limit, reason


@dataclass(frozen=True, slots=True)
class GrowingWait:
    """More comes than goes, look after look: what comes after the dwell would begin too late.

    A surge of three times the capacity makes the wait two seconds longer each second. Who waits until it is
    long has a queue of whole answers by then, which takes longer to work off than it took to come.
    """

    limit: float
    horizon: float
    name: str = "growing_wait"

    def strain(self, pressure: Pressure) -> tuple[float, str] | None:
        if not pressure.growing or pressure.beyond < max(1, pressure.slots):
            return None
        wait = pressure.growth + self.horizon * pressure.growing
        reason = (
            f"in {self.horizon:g} s the predicted wait grows to {wait:.1f} s; the limit is {self.limit:g} s"
        )
        return wait / self.limit, reason


def rules(settings: OverloadSettings) -> tuple[Rule, ...]:
    wait = settings.predicted_wait.total_seconds()
    return (
        Waiting(settings.waiting),
        SlowStart(settings.first_token.total_seconds()),
        LongWait(wait),
        GrowingWait(wait, horizon=settings.dwell.total_seconds()),
    )


def advance(state: State, pressure: Pressure, settings: OverloadSettings, *, now: float) -> State:
    """The state after one more reading. A pin wins over every rule until it ends."""
    if state.pinned_until is not None:
        if now < state.pinned_until:
            return state
        state = replace(state, pinned_until=None, since=now, calm_since=None, pressed_since=None)
    if not settings.enabled:
        return State(rule="disabled", reason="the policy is turned off", since=state.since)
    strain, rule, reason = _hardest(pressure, settings)
    state = _noted(state, pressure, strain, settings, now)
    wanted = _wanted(state, strain, settings, now)
    if wanted > state.level:
        relapsed = state.lowered_at is not None and now - state.lowered_at < _RELAPSE
        relapses = min(_MOST_RELAPSES, state.relapses + 1) if relapsed else state.relapses
        return _shedding(
            replace(
                state,
                level=wanted,
                since=now,
                rule=rule,
                reason=reason,
                pressed_since=now,
                lowered_at=None,
                relapses=relapses,
            ),
            pressure,
            settings,
            now,
        )
    if _may_lower(state, pressure, settings, now):
        level = Level(state.level - 1)
        # What did not last is forgiven after a long calm.
        relapses = 0 if state.calm_since is not None and _calm_for(state, now) > _RELAPSE else state.relapses
        return replace(
            state,
            level=level,
            since=now,
            rule="calm",
            reason="the pressure is gone",
            calm_since=now,
            lowered_at=now,
            relapses=relapses,
            shed=frozenset(),
        )
    return _shedding(state, pressure, settings, now)


def _hardest(pressure: Pressure, settings: OverloadSettings) -> tuple[float, str, str]:
    strain, name, reason = 0.0, "none", ""
    for rule in rules(settings):
        found = rule.strain(pressure)
        if found is not None and found[0] > strain:
            strain, name, reason = found[0], rule.name, found[1]
    return strain, name, reason


def _noted(state: State, pressure: Pressure, strain: float, settings: OverloadSettings, now: float) -> State:
    """How long it has been hard, and how long calm. A stale reading is no calm."""
    pressed = (state.pressed_since or now) if strain > 1 else None
    is_calm = strain < settings.release and not pressure.is_stale
    calm = (state.calm_since or now) if is_calm else None
    return replace(state, pressed_since=pressed, calm_since=calm)


def _wanted(state: State, strain: float, settings: OverloadSettings, now: float) -> Level:
    wanted = Level.FULL
    if strain > _FOUR_TIMES:
        wanted = Level.SIMILAR
    elif strain > _TWICE:
        wanted = Level.TEMPLATE
    elif strain > 1:
        wanted = Level.TRUNCATE
    lasts = state.pressed_since is not None and now - state.pressed_since >= settings.dwell.total_seconds()
    if lasts and Level.FULL < state.level < Level.SIMILAR:
        wanted = max(wanted, Level(state.level + 1))
    return wanted


def _may_lower(state: State, pressure: Pressure, settings: OverloadSettings, now: float) -> bool:
    if state.level is Level.FULL or state.calm_since is None:
        return False
    longest = settings.longest_calm.total_seconds()
    needed: float = settings.calm.total_seconds() * 2.0**state.relapses
    if not _fits(pressure):
        # A degraded queue is short because it is degraded: whole answers would bring the pressure back.
        needed = longest
    return min(_calm_for(state, now), now - state.since) >= min(needed, longest)


def _fits(pressure: Pressure) -> bool:
    if pressure.offered is None or not pressure.capacity:
        return True
    return pressure.offered <= _ROOM * pressure.capacity


def _calm_for(state: State, now: float) -> float:
    return now - state.calm_since if state.calm_since is not None else 0.0


def _shedding(state: State, pressure: Pressure, settings: OverloadSettings, now: float) -> State:
    """At the last level, with full GPUs and a wait that still grows, the lowest class gets nothing new.

    Premium is never shed here: only a wait that is too long for the job itself turns it away.
    """
    grows = pressure.growth > state.longest_wait
    state = replace(state, longest_wait=pressure.growth)
    is_full = pressure.gpu is not None and pressure.gpu > settings.busy and not pressure.is_stale
    if state.level is not Level.SIMILAR or not is_full:
        return replace(state, shed=frozenset())
    past = pressure.growth > settings.first_token.total_seconds()
    if not (grows and past):
        return state
    lasts = now - state.since >= 2 * settings.dwell.total_seconds()
    shed = {ServiceClass.BULK.value} | ({ServiceClass.STANDARD.value} if lasts else set())
    return replace(state, shed=state.shed | shed)
