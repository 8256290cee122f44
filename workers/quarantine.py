"""Which jobs may be in an engine together, so that a prompt that kills it takes no innocent one along. Pure.

A job may be tried `limit` times. The last try is alone in the engine: whoever shared the earlier ones with a
poison prompt then gets its answer, and the poison nobody's attempt but its own. Before that, jobs under which
an engine died or hung (a strike) run in a small group, without any new job beside them. A job whose worker
was merely lost has no strike and waits for nobody: workers die of a hundred causes, prompts are the least.

With one poison prompt among n suspects, groups of g need n/g turns, and g more for those of its own group:
least at the square root, 16 turns for 64 slots where pairs would take 34.
"""

import math
from collections.abc import Collection
from enum import IntEnum
from typing import Final

_LEAST_GROUP: Final = 2


class Isolation(IntEnum):
    FREE = 0
    GROUP = 1
    ALONE = 2


def isolation(*, attempts: int, strikes: int, limit: int) -> Isolation:
    """For the next attempt of a job, given those made so far."""
    if attempts and attempts >= limit - 1:
        return Isolation.ALONE
    return Isolation.GROUP if strikes else Isolation.FREE


def group_size(slots: int) -> int:
    return max(_LEAST_GROUP, math.isqrt(slots))


def opening(
    waiting: Collection[Isolation], running: Collection[Isolation], *, slots: int
) -> tuple[Isolation, int]:
    """Which kind may begin now, and how many of it. Suspects go first: they have waited longest already.

    So a free job begins only while no suspect runs or waits, and a suspect once the free ones have left.
    """
    closed = (Isolation.FREE, 0)
    inside = max(running, default=Isolation.FREE)
    suspected = Isolation.GROUP if Isolation.GROUP in waiting else max(waiting, default=Isolation.FREE)
    if inside is Isolation.ALONE:
        return closed
    if inside is Isolation.GROUP:
        room = group_size(slots) - len(running)
        return (Isolation.GROUP, max(0, room)) if suspected is Isolation.GROUP else closed
    if suspected is Isolation.FREE:
        return Isolation.FREE, slots - len(running)
    if running:
        return closed
    return (Isolation.GROUP, group_size(slots)) if suspected is Isolation.GROUP else (Isolation.ALONE, 1)
