"""How much waits. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Waiting:
    """Jobs, tokens and the age of the oldest, in seconds, of one model and class."""

    jobs: int
    tokens: int
    oldest: float
