"""The limits of a caller at the door: rates, the daily quota and the weight of what he asks."""

from typing import Final

from api import standings
from api.auth import Caller
from core import metrics
from core.errors import InvalidField, LimitReached
from core.settings import DefaultLimits, Settings
from models.limits import Bounds, Complexity, Limits
from models.service_class import ServiceClass
from queues.limits.complexity import Weight, weigh
from queues.limits.quota import Quota
from queues.limits.rates import RateLimits, demanded

AUTO: Final = "auto"


def default_bounds(settings: Settings) -> Bounds:
    return Bounds(_limits(settings.limits.tenant), _limits(settings.limits.key))


def _limits(default: DefaultLimits) -> Limits:
    return Limits(**default.model_dump())


class Door:
    """Asks the counters, and notes for the answer where the caller stands."""

    def __init__(self, settings: Settings, rates: RateLimits, quota: Quota) -> None:
        self._complexity = settings.complexity
        self._rates = rates
        self._quota = quota

    def weigh(
        self,
        caller: Caller,
        *,
        prompt_tokens: int,
        max_tokens: int,
        service_class: ServiceClass,
    ) -> Weight:
        """With the request's own claim. Raises `InvalidField` where that is no complexity."""
        weight = weigh(
            self._complexity,
            claimed=claimed_complexity(standings.claimed()),
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            service_class=service_class,
            ceiling=caller.bounds.max_complexity,
        )
        standings.note(complexity=weight.applied.value)
        return weight

    async def admit(self, caller: Caller, *, tokens: int) -> None:
        """Counts one request of so many tokens. Raises `LimitReached`, and `InvalidField`."""
        tenant_id, key_id = caller.tenant_id, caller.key_id
        try:
            standings.note(await self._quota.check(caller.bounds, tenant_id=tenant_id, key_id=key_id))
            wanted = demanded(caller.bounds, tenant_id=tenant_id, key_id=key_id, tokens=tokens)
            standings.note(await self._rates.take(wanted))
        except LimitReached as reached:
            standings.note(reached.standings)
            metrics.LIMIT_REFUSALS.labels(reached.code).inc()
            raise


def claimed_complexity(header: str | None) -> Complexity | None:
    """The header X-Request-Complexity; None for `auto`. Raises `InvalidField`."""
    word = (header or AUTO).strip().lower()
    if word == AUTO:
        return None
    try:
        return Complexity(word)
    except ValueError:
        raise InvalidField("X-Request-Complexity", "Must be low, medium, high or auto.") from None
