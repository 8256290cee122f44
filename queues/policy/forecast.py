"""When so many tokens of a class have started, while the other classes' queues end or do not. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from queues.policy.pressure import Reading

# Less than this part of a class's rate is what measuring errs by, and no queue that ends.
_NOISE: Final = 0.1


@dataclass(slots=True)
class _Line:
    """One class: `tokens` wait, `rate` of them start and `arrivals` come, in tokens a second."""

    tokens: float
    rate: float
    arrivals: float

    @property
    def spare(self) -> float:
        """What others get when this queue has ended and only what comes is started."""
        surplus = self.rate - self.arrivals
        return surplus if surplus > _NOISE * self.rate else 0.0

    @property
    def lasts(self) -> float:
        return self.tokens / self.spare if self.spare else float("inf")


def seconds_until(ahead: float, *, of: str, classes: Mapping[str, Reading]) -> float | None:
    """`ahead` tokens of a class, at the rate at which it starts now and at what the others leave it later.

    None: no rate is known.
    """
    reading = classes.get(of)
    if reading is None or not ahead:
        return None if reading is None else 0.0
    if not reading.rate:
        return None
    others = {name: _line(one) for name, one in classes.items() if name != of and one.jobs and one.flow}
    rate, seconds = reading.rate, 0.0
    while True:
        name = min(others, key=lambda other: others[other].lasts, default=None)
        lasts = others[name].lasts if name is not None else float("inf")
        if name is None or ahead <= rate * lasts:
            return seconds + ahead / rate
        seconds, ahead = seconds + lasts, ahead - rate * lasts
        ended = others.pop(name)
        share = ended.spare / (rate + sum(line.rate for line in others.values()))
        rate += share * rate
        for line in others.values():
            line.tokens = max(0.0, line.tokens - lasts * line.spare)
            line.rate += share * line.rate


def _line(reading: Reading) -> _Line:
    return _Line(float(reading.tokens), reading.flow or 0.0, reading.arrivals or 0.0)
