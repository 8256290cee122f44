"""How much waits. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """Jobs, tokens and the age of the oldest, in seconds, of one model and class."""

    jobs: int
    tokens: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Ahead:
    """Jobs and tokens of the same model and class that came before a job that waits."""

    jobs: int
    tokens: int
