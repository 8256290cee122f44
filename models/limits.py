"""What a tenant or a key may use: bounds by owner, and which of two words counts."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any


class Complexity(StrEnum):
    """How heavy a request is, lightest first."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        return list(Complexity).index(self)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one owner. None: the default counts; 0: no bound, whatever the default."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrent_jobs: int | None = None
    max_complexity: Complexity | None = None

    def over(self, default: "Limits") -> "Limits":
        """These, and the default's where these say nothing."""
        own, other = asdict(self), asdict(default)
        return Limits(**{name: other[name] if own[name] is None else own[name] for name in own})

    def document(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> "Limits":
        """Another version may have written it: what is unknown is ignored."""
        known = {field.name for field in fields(cls)}
        values = {name: value for name, value in (document or {}).items() if name in known}
        if values.get("max_complexity") is not None:
            values["max_complexity"] = Complexity(values["max_complexity"])
        return cls(**values)


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of a key and of its tenant, defaults included."""

    tenant: Limits = NO_LIMITS
    key: Limits = NO_LIMITS

    @property
    def max_complexity(self) -> Complexity:
        """The lower of the two words."""
        said = [limits.max_complexity for limits in (self.tenant, self.key) if limits.max_complexity]
        return min(said, key=lambda complexity: complexity.rank, default=Complexity.HIGH)


NO_BOUNDS = Bounds()
