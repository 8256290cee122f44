"""The three service classes, from the first served to the last."""

from enum import StrEnum


class ServiceClass(StrEnum):
    PREMIUM = "premium"
    STANDARD = "standard"
    BULK = "bulk"


def clamp(wanted: ServiceClass, ceiling: ServiceClass) -> ServiceClass:
    """The better of what was asked and what the key may use, never above the ceiling."""
    ranks = list(ServiceClass)
    return ranks[max(ranks.index(wanted), ranks.index(ceiling))]
