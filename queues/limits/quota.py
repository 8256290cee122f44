"""The daily quota of tokens: what is used by now, looked up rarely, judged at every request."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Final

from core.clock import Clock
from core.errors import QuotaExhausted
from models.dialect import Database
from models.limits import Bounds
from models.repositories import usage
from queues.limits.windows import Standing

_FRESH: Final = 2.0  # seconds
_REMEMBERED: Final = 10_000
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class UsedToday:
    """Tokens of finished jobs since midnight UTC."""

    tenant: int
    keys: dict[str, int]


class Quota:
    """Tokens are accounted when a job ends, so what runs just now may go a little beyond a quota."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._known: OrderedDict[str, tuple[UsedToday, float]] = OrderedDict()

    async def check(self, bounds: Bounds, *, tenant_id: str, key_id: str) -> list[Standing]:
        """Raises `QuotaExhausted`; nothing is asked where no quota is set."""
        if not (bounds.tenant.tokens_per_day or bounds.key.tokens_per_day):
            return []
        used, now = await self._used(tenant_id), self._clock.now()
        standings = [
            _standing(f"{name}-tokens-per-day", limit, spent, now)
            for name, limit, spent in (
                ("tenant", bounds.tenant.tokens_per_day, used.tenant),
                ("key", bounds.key.tokens_per_day, used.keys.get(key_id, 0)),
            )
            if limit
        ]
        for standing in standings:
            if standing.remaining == 0:
                raise _refusal(standing, standings)
        return standings

    async def _used(self, tenant_id: str) -> UsedToday:
        known, until = self._known.get(tenant_id, (None, 0.0))
        if known is not None and self._clock.monotonic() < until:
            return known
        async with self._database.read() as connection:
            keys = await usage.tokens_by_key(connection, tenant_id, self._clock.now().date())
        found = UsedToday(sum(keys.values()), keys)
        self._known.pop(tenant_id, None)
        self._known[tenant_id] = (found, self._clock.monotonic() + _FRESH)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found


def until_midnight(now: datetime) -> float:
    """Seconds until the next day begins, UTC."""
    return (datetime.combine(now.date() + _DAY, time(), now.tzinfo) - now).total_seconds()


def _standing(name: str, limit: int, spent: int, now: datetime) -> Standing:
    return Standing(
        name=name,
        unit="tokens",
        limit=limit,
        remaining=max(0, limit - spent),
        resets_in=until_midnight(now),
        span=int(_DAY.total_seconds()),
    )


def _refusal(standing: Standing, standings: list[Standing]) -> QuotaExhausted:
    owner = standing.name.partition("-")[0]
    error = QuotaExhausted(
        f"The {standing.limit} tokens a day of this {owner} are used up; the next day begins at 00:00 UTC."
    )
    error.retry_after = standing.resets_in
    error.standings = tuple(standings)
    return error
