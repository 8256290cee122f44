"""A sliding window counter as numbers: what is left of it, and when there is room again. Pure."""

from dataclasses import dataclass
from math import floor


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted in the window before and in this one; times are seconds.

    `before_leaves` is how long the earlier window still overlaps the last `span`, `turns` when this one
    becomes the earlier one.
    """

    before: int
    before_leaves: float
    current: int
    turns: float


def used(counted: Counted, *, span: float) -> float:
    """The estimate for the last `span` seconds: the earlier window counts by its overlap."""
    return counted.before * counted.before_leaves / span + counted.current


def remaining(counted: Counted, *, limit: int, span: float) -> int:
    return max(0, limit - floor(used(counted, span=span)))


def room_after(counted: Counted, *, limit: int, span: float, cost: int) -> float:
    """Seconds until `cost` fits; 0 when it fits now. A cost above the limit never fits: `span`."""
    if cost > limit:
        return span
    spare = limit - cost
    if used(counted, span=span) <= spare:
        return 0.0
    if counted.current <= spare and counted.before:
        # The earlier window leaves evenly.
        return max(0.0, counted.before_leaves - (spare - counted.current) * span / counted.before)
    # This window must turn first, and then leave in part.
    leaves = span * (1 - spare / counted.current) if counted.current else 0.0
    return counted.turns + max(0.0, leaves)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a caller stands under one limit, for the headers of the answer. Times are seconds."""

    name: str
    unit: str  # requests or tokens
    limit: int
    remaining: int
    resets_in: float
    span: int
