"""Where a caller stands under his limits, as headers: the IETF draft's form, and OpenAI's."""

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from queues.limits.windows import Standing

_UNITS: Final = ("requests", "tokens")
_MINUTE: Final = 60


@dataclass(slots=True)
class Noted:
    """What one request learns on its way that its answer has to say."""

    standings: list[Standing] = field(default_factory=list)
    complexity: str | None = None
    claimed: str | None = None  # the header as it came


_noted: ContextVar[Noted | None] = ContextVar("penstock_noted", default=None)


def begin(claimed: str | None = None) -> Noted:
    """Called around a request, before anything is noted in it."""
    noted = Noted(claimed=claimed)
    _noted.set(noted)
    return noted


def claimed() -> str | None:
    noted = _noted.get()
    return noted.claimed if noted else None


def note(standings: Sequence[object] = (), *, complexity: str | None = None) -> None:
    noted = _noted.get()
    if noted is None:
        return
    # Of a bulk submission the last word counts: it is the lowest.
    found = [standing for standing in standings if isinstance(standing, Standing)]
    names = {standing.name for standing in found}
    noted.standings = [one for one in noted.standings if one.name not in names] + found
    noted.complexity = complexity or noted.complexity


def headers(noted: Noted) -> dict[str, str]:
    found: dict[str, str] = {}
    if noted.complexity:
        found["X-Request-Complexity-Applied"] = noted.complexity
    if not noted.standings:
        return found
    found["RateLimit-Policy"] = ", ".join(f'"{s.name}";q={s.limit};w={s.span}' for s in noted.standings)
    found["RateLimit"] = ", ".join(
        f'"{s.name}";r={s.remaining};t={ceil(s.resets_in)}' for s in noted.standings
    )
    for unit in _UNITS:
        of_unit = [s for s in noted.standings if s.unit == unit and s.span == _MINUTE]
        if of_unit:
            tightest = min(of_unit, key=lambda s: s.remaining)
            found[f"x-ratelimit-limit-{unit}"] = str(tightest.limit)
            found[f"x-ratelimit-remaining-{unit}"] = str(tightest.remaining)
            found[f"x-ratelimit-reset-{unit}"] = _duration(tightest.resets_in)
    return found


def _duration(seconds: float) -> str:
    """As OpenAI's clients read it: 350ms, 12s, 6m0s."""
    if seconds < 1:
        return f"{ceil(seconds * 1000)}ms"
    minutes, rest = divmod(ceil(seconds), _MINUTE)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
