"""How much may be in the broker: so little that an order made late is still obeyed. Pure."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

# Several tenants may be ahead of their claims at once; together they hold this many windows.
_WINDOWS_PER_CLASS: Final = 3
# A lane is refilled in steps: one statement per job would cost more than it gains.
_REFILL: Final = 0.25


@dataclass(frozen=True, slots=True)
class Lane:
    model: str
    service_class: str
    tenant: str
    batch: str | None = None

    @property
    def owner(self) -> tuple[str, str, str]:
        """Whose window it is: a tenant has one per class, however many batches."""
        return self.model, self.service_class, self.tenant

    @property
    def group(self) -> tuple[str, str]:
        return self.model, self.service_class


@dataclass(frozen=True, slots=True)
class Pace:
    """What one model's workers take: slots that live workers have, and jobs a second by class."""

    slots: int
    rate: float = 0.0

    def window(self, horizon: timedelta, idle: int) -> int:
        """Jobs to have ready ahead of the workers: their slots, or more where jobs are very short.

        By Little's law `rate x horizon` jobs cover the time from a release to its claim.
        """
        if not self.slots:
            return idle
        return max(self.slots, math.ceil(self.rate * horizon.total_seconds()))


@dataclass(frozen=True, slots=True)
class Allowance:
    """Jobs that may be released now: of each lane, of each tenant's class, and of each class."""

    lanes: Mapping[Lane, int]
    owners: Mapping[tuple[str, str, str], int]
    classes: Mapping[tuple[str, str], int]


def allow(
    lanes: Sequence[Lane], released: Mapping[Lane, int], windows: Mapping[tuple[str, str], int]
) -> Allowance:
    """What may be released, given what was released and not yet claimed.

    A tenant may have one window per class ahead of its claims, all tenants of a class three. So a
    newcomer's jobs never queue behind more than what the workers are about to run.
    """
    ahead: defaultdict[tuple[str, str], int] = defaultdict(int)
    taken: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    for lane, jobs in released.items():
        ahead[lane.group] += jobs
        taken[lane.owner] += jobs
    classes = {group: _WINDOWS_PER_CLASS * window - ahead[group] for group, window in windows.items()}
    allowed: dict[Lane, int] = {}
    for lane in lanes:
        window = windows.get(lane.group, 0)
        room = min(window - taken[lane.owner], classes.get(lane.group, 0))
        if room >= max(1, _REFILL * window):
            allowed[lane] = room
    owners = {lane.owner: room for lane, room in allowed.items()}
    return Allowance(allowed, owners, classes)
