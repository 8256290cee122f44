"""Poison: whatever shares an engine with it gets its answer all the same."""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.quarantine import Isolation, group_size, isolation, opening

FREE, GROUP, ALONE = Isolation
LIMIT = 3


@pytest.mark.parametrize(
    ("attempts", "strikes", "limit", "kind"),
    [
        (0, 0, 3, FREE),
        (1, 1, 3, GROUP),
        (1, 0, 3, FREE),  # its worker was lost, not its engine
        (2, 1, 3, ALONE),
        (2, 0, 3, ALONE),  # the last one, whatever became of the others
        (0, 0, 1, FREE),  # without a second attempt there is nobody to suspect
        (1, 1, 2, ALONE),
        (3, 2, 5, GROUP),
        (4, 4, 5, ALONE),
    ],
)
def test_a_job_is_isolated_by_what_happened_to_it(
    attempts: int, strikes: int, limit: int, kind: Isolation
) -> None:
    assert isolation(attempts=attempts, strikes=strikes, limit=limit) is kind


@pytest.mark.parametrize(
    ("waiting", "running", "expected"),
    [
        ([FREE], [], (FREE, 16)),
        ([FREE], [FREE] * 3, (FREE, 13)),
        ([FREE, GROUP], [FREE], (FREE, 0)),
        ([FREE, GROUP], [], (GROUP, 4)),
        ([FREE, GROUP], [GROUP] * 3, (GROUP, 1)),
        ([FREE, ALONE], [GROUP], (FREE, 0)),
        ([GROUP, ALONE], [], (GROUP, 4)),
        ([ALONE, FREE], [], (ALONE, 1)),
        ([GROUP, FREE], [ALONE], (FREE, 0)),
        ([FREE], [GROUP], (FREE, 0)),
        ([], [], (FREE, 16)),
    ],
)
def test_who_may_begin_beside_whom(
    waiting: list[Isolation], running: list[Isolation], expected: tuple[Isolation, int]
) -> None:
    assert opening(waiting, running, slots=16) == expected


def test_a_group_is_never_smaller_than_a_pair() -> None:
    assert [group_size(slots) for slots in (1, 2, 8, 64, 256)] == [2, 2, 2, 8, 16]


@dataclass(eq=False)
class Job:
    is_poison: bool
    attempts: int = 0
    strikes: int = 0

    @property
    def kind(self) -> Isolation:
        return isolation(attempts=self.attempts, strikes=self.strikes, limit=LIMIT)


class Engine:
    """Dies when a poison prompt is inside, and takes everybody along; else one job at a time ends."""

    def __init__(self, jobs: list[Job], slots: int) -> None:
        self.waiting, self.running, self.slots = jobs, list[Job](), slots
        self.ended: Counter[str] = Counter()

    def run(self) -> None:
        while self.waiting or self.running:
            kind, room = opening(
                [j.kind for j in self.waiting], [j.kind for j in self.running], slots=self.slots
            )
            begun = [job for job in self.waiting if job.kind is kind][
                : min(room, self.slots - len(self.running))
            ]
            assert begun or self.running, "everybody waits for everybody"
            self.waiting = [job for job in self.waiting if job not in begun]
            self.running += begun
            if any(job.is_poison for job in self.running):
                self.die()
            else:
                self.running.pop()
                self.ended["answered"] += 1

    def die(self) -> None:
        for job in self.running:
            job.attempts += 1
            job.strikes += 1
            if job.attempts < LIMIT:
                self.waiting.append(job)
            else:
                assert job.is_poison, "an innocent lost its last attempt"
                self.ended["exhausted"] += 1
        self.running = []


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 20))
def test_however_many_poison_prompts_come_every_innocent_is_answered(poison: list[bool], slots: int) -> None:
    engine = Engine([Job(is_poison) for is_poison in poison], slots)

    engine.run()

    assert engine.ended == Counter(exhausted=sum(poison), answered=len(poison) - sum(poison))
