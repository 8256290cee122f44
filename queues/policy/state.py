"""What the policy has decided for one model, as every process reads it. Pure."""

from dataclasses import dataclass, field

from models.degradation import Level
from queues.policy.pressure import Pressure


@dataclass(frozen=True, slots=True)
class State:
    """The level now, since when, by which rule and why; times are seconds since 1970.

    `calm_since` and `pressed_since` say how long the pressure has been low or high without a break;
    `relapses` counts how often a lower level did not last. `shed` has the classes that get no new work.
    """

    level: Level = Level.FULL
    since: float = 0.0
    rule: str = "none"
    reason: str = ""
    pinned_until: float | None = None
    calm_since: float | None = None
    pressed_since: float | None = None
    lowered_at: float | None = None
    relapses: int = 0
    shed: frozenset[str] = field(default_factory=frozenset)
    longest_wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One model's state and the pressure that it was decided on."""

    state: State
    pressure: Pressure
