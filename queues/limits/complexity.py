"""How heavy a request is: from its tokens and its caller's word, cut to what the key may claim. Pure."""

from dataclasses import dataclass
from math import ceil

from core.settings import ComplexitySettings
from models.limits import Complexity
from models.service_class import ServiceClass, clamp


@dataclass(frozen=True, slots=True)
class Weight:
    """What a request is taken for: the word that is echoed, what it costs, and in which class it runs."""

    applied: Complexity
    cost: int
    service_class: ServiceClass


def measured(settings: ComplexitySettings, *, prompt_tokens: int, max_tokens: int) -> Complexity:
    """By tokens alone; a long prompt with a short answer is not heavy, nor the other way round."""
    if prompt_tokens > settings.high_input and max_tokens > settings.high_output:
        return Complexity.HIGH
    if prompt_tokens > settings.medium_input or max_tokens > settings.medium_output:
        return Complexity.MEDIUM
    return Complexity.LOW


def weigh(
    settings: ComplexitySettings,
    *,
    claimed: Complexity | None,
    prompt_tokens: int,
    max_tokens: int,
    service_class: ServiceClass,
    ceiling: Complexity = Complexity.HIGH,
) -> Weight:
    """A claim can only add weight: what the tokens say stands.

    A claim above the key's ceiling is cut to it. A request whose tokens are above it keeps its weight and
    runs in the class for such requests, or in a lower one that it asked for.
    """
    real = measured(settings, prompt_tokens=prompt_tokens, max_tokens=max_tokens)
    wanted = max(claimed or real, real, key=lambda complexity: complexity.rank)
    applied = min(wanted, ceiling, key=lambda complexity: complexity.rank)
    weighed = max(applied, real, key=lambda complexity: complexity.rank)
    factor = settings.high_weight if weighed is Complexity.HIGH else 1.0
    best = service_class
    if real.rank > ceiling.rank:
        best = clamp(service_class, ServiceClass(settings.beyond_ceiling))
    if weighed is Complexity.HIGH:
        best = clamp(best, ServiceClass(settings.high_class))
    return Weight(applied, ceil((prompt_tokens + max_tokens) * factor), best)
