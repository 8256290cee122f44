"""A job's timeline as a person reads it."""

from collections.abc import Sequence
from typing import Any

from cli.console import show_table

_COLUMNS = ("at", "status", "attempt", "worker", "reason")


def show_timeline(changes: Sequence[dict[str, Any]]) -> None:
    show_table(_COLUMNS, [[change[column] for column in _COLUMNS] for change in changes])
