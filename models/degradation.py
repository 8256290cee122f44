"""The levels of degradation, the label on an answer, and what a caller refuses. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, Final

from models.service_class import ServiceClass


class Level(IntEnum):
    """Each level also gives what the levels below it give, where its own answer is not to be had."""

    FULL = 0
    TRUNCATE = 1
    TEMPLATE = 2
    SIMILAR = 3

    @property
    def label(self) -> str:
        return self.name.lower()


REFUSABLE: Final = (Level.TRUNCATE, Level.TEMPLATE, Level.SIMILAR)
ALL: Final = frozenset(REFUSABLE)
NONE: Final[frozenset[Level]] = frozenset()


@dataclass(frozen=True, slots=True)
class Degradation:
    """The label on an answer: what it is and why. `max_tokens` is the limit of a truncated one.

    `asked_model` is the model that was asked for, where another one serves.
    """

    level: Level
    name: str
    reason: str
    similarity: float | None = None
    source_job_id: str | None = None
    max_tokens: int | None = None
    asked_model: str | None = None

    def document(self) -> dict[str, Any]:
        """As tables and hot copies keep it."""
        return {key: value for key, value in asdict(self).items() if value is not None}


_SHOWN: Final = ("level", "name", "reason", "similarity", "source_job_id")
FULL: Final[dict[str, Any]] = dict.fromkeys(_SHOWN) | {"level": 0, "name": Level.FULL.label}


def shown(kept: Mapping[str, Any] | None) -> dict[str, Any]:
    """The label as readers see it, the same fields always."""
    return FULL if kept is None else FULL | {name: kept[name] for name in _SHOWN if name in kept}


def level_of(kept: Mapping[str, Any] | None) -> int:
    return 0 if kept is None else int(kept.get("level", 0))


@dataclass(frozen=True, slots=True)
class Terms:
    """What a caller accepts: the levels, and how alike a similar question must be (None: the setting's)."""

    allow: frozenset[Level]
    min_similarity: float | None = None

    def allows(self, level: Level) -> bool:
        return level in self.allow


def terms(request: Mapping[str, Any], *, service_class: str, batch_id: str | None = None) -> Terms:
    """From the request as it is kept. Bulk and batches that say nothing refuse everything: they wait."""
    asked = request.get("degradation") or {}
    allow = asked.get("allow")
    if allow is not None:
        levels = frozenset(level for level in REFUSABLE if level.label in allow)
    else:
        levels = NONE if batch_id is not None or service_class == ServiceClass.BULK else ALL
    return Terms(levels, asked.get("min_similarity"))
