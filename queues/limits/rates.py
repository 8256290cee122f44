"""Requests and tokens per minute: counted in Redis for all processes, here alone while Redis is down."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from core.errors import InvalidField, RateLimited
from core.logs import get_logger
from core.settings import LimitSettings
from models.limits import Bounds
from queues.limits.windows import Counted, Standing, remaining, room_after
from queues.redis import REDIS_DOWN, Redis, is_in_process

if TYPE_CHECKING:
    from limits import RateLimitItemPerMinute
    from limits.aio.strategies import SlidingWindowCounterRateLimiter

logger = get_logger(__name__)

_SPAN: Final = 60
_REST: Final = 2.0  # seconds without a question after one failed: an outage costs one timeout


@dataclass(frozen=True, slots=True)
class Demanded:
    """One limit, and what a request takes of it."""

    name: str
    unit: str
    owner: str
    limit: int
    cost: int


def demanded(bounds: Bounds, *, tenant_id: str, key_id: str, tokens: int) -> list[Demanded]:
    """Every rate that applies to a request of so many tokens."""
    found = []
    for owner, name, limits in ((tenant_id, "tenant", bounds.tenant), (key_id, "key", bounds.key)):
        for unit, limit, cost in (
            ("requests", limits.requests_per_minute, 1),
            ("tokens", limits.tokens_per_minute, tokens),
        ):
            if limit:
                found.append(Demanded(f"{name}-{unit}", unit, owner, limit, cost))
    return found


class RateLimits:
    """Sliding window counters of the last minute."""

    def __init__(self, redis: Redis, *, namespace: str, settings: LimitSettings) -> None:
        self._redis = redis
        self._namespace = namespace
        self._timeout = settings.redis_timeout.total_seconds()
        self._shared: SlidingWindowCounterRateLimiter | None = None
        self._local: SlidingWindowCounterRateLimiter | None = None
        self._rest_until = 0.0

    async def take(self, wanted: Sequence[Demanded]) -> list[Standing]:
        """Takes all or nothing. Raises `RateLimited`, with the standings, and `InvalidField`."""
        for one in wanted:
            if one.cost > one.limit:
                raise InvalidField(
                    "max_tokens",
                    f"The request counts {one.cost} tokens and the limit is {one.limit} a minute: "
                    "shorten the prompt, or ask for fewer tokens.",
                )
        if not wanted:
            return []
        if time.monotonic() >= self._rest_until:
            try:
                async with asyncio.timeout(self._timeout):
                    return await _take(self._shared_limiter(), wanted)
            except REDIS_DOWN as error:
                self._rest_until = time.monotonic() + _REST
                logger.warning("limits_are_local", reason=type(error).__name__)
        return await _take(self._local_limiter(), wanted)

    def _shared_limiter(self) -> "SlidingWindowCounterRateLimiter":
        if is_in_process(self._redis):
            return self._local_limiter()
        if self._shared is None:
            # Imported at the first limit: without any, a start need not pay for it.
            from limits.aio.storage import RedisStorage
            from limits.aio.strategies import SlidingWindowCounterRateLimiter

            options: dict[str, Any] = {"connection_pool": self._redis.connection_pool}
            storage = RedisStorage(
                "redis://unused:6379",
                implementation="redispy",
                key_prefix=f"{self._namespace}:limits",
                **options,
            )
            self._shared = SlidingWindowCounterRateLimiter(storage)
        return self._shared

    def _local_limiter(self) -> "SlidingWindowCounterRateLimiter":
        if self._local is None:
            from limits.aio.storage import MemoryStorage
            from limits.aio.strategies import SlidingWindowCounterRateLimiter

            self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
        return self._local


async def _take(limiter: "SlidingWindowCounterRateLimiter", wanted: Sequence[Demanded]) -> list[Standing]:
    counts = await asyncio.gather(*(_counted(limiter, one) for one in wanted))
    standings = [_standing(one, counted) for one, counted in zip(wanted, counts, strict=True)]
    waits = [
        room_after(counted, limit=one.limit, span=_SPAN, cost=one.cost)
        for one, counted in zip(wanted, counts, strict=True)
    ]
    if any(waits):
        raise _refusal(wanted, standings, waits)
    taken = await asyncio.gather(
        *(limiter.hit(_item(one), one.owner, one.name, cost=one.cost) for one in wanted)
    )
    if not all(taken):  # another process was faster between the two looks
        raise _refusal(wanted, standings, [0.0 if done else 1.0 for done in taken])
    return [
        replace(standing, remaining=max(0, standing.remaining - one.cost))
        for one, standing in zip(wanted, standings, strict=True)
    ]


def _refusal(
    wanted: Sequence[Demanded], standings: Sequence[Standing], waits: Sequence[float]
) -> RateLimited:
    longest = max(range(len(waits)), key=waits.__getitem__)
    one = wanted[longest]
    error = RateLimited(
        f"The limit of {one.limit} {one.unit} a minute for this {one.name.partition('-')[0]} is used up."
    )
    error.retry_after = max(1.0, waits[longest])
    error.standings = tuple(standings)
    return error


async def _counted(limiter: "SlidingWindowCounterRateLimiter", one: Demanded) -> Counted:
    storage = cast("Any", limiter.storage)
    before, leaves, current, expires = await storage.get_sliding_window(
        _item(one).key_for(one.owner, one.name), _SPAN
    )
    # The counter of a window is kept for one window longer.
    return Counted(before, min(leaves, _SPAN), current, max(0.0, expires - _SPAN))


def _standing(one: Demanded, counted: Counted) -> Standing:
    return Standing(
        name=one.name,
        unit=one.unit,
        limit=one.limit,
        remaining=remaining(counted, limit=one.limit, span=_SPAN),
        resets_in=room_after(counted, limit=one.limit, span=_SPAN, cost=one.limit),
        span=_SPAN,
    )


def _item(one: Demanded) -> "RateLimitItemPerMinute":
    from limits import RateLimitItemPerMinute

    return RateLimitItemPerMinute(one.limit)
