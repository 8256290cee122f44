"""The batcher that groups what waits while its lane is busy."""

import asyncio
from collections.abc import Sequence

import pytest

from models.group_commit import GroupCommit


class Recorder:
    """A flush that can be held, and remembers its groups."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.groups.append(list(items))
        await self.gate.wait()
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return [item * 10 for item in items]


async def test_a_lone_item_waits_for_nobody() -> None:
    recorder = Recorder()
    recorder.gate.set()
    assert await GroupCommit(recorder).submit(1) == 10
    assert recorder.groups == [[1]]


async def test_what_arrives_during_a_flush_is_the_next_group() -> None:
    recorder = Recorder()
    commit = GroupCommit(recorder)
    futures = [commit.enqueue(1)]
    await asyncio.sleep(0)
    futures += [commit.enqueue(n) for n in (2, 3, 4)]
    recorder.gate.set()
    assert await asyncio.gather(*futures) == [10, 20, 30, 40]
    assert recorder.groups == [[1], [2, 3, 4]]


async def test_a_group_is_no_larger_than_its_limit() -> None:
    recorder = Recorder()
    recorder.gate.set()
    commit = GroupCommit(recorder, limit=2)
    await asyncio.gather(*(commit.submit(n) for n in range(5)))
    assert [len(group) for group in recorder.groups] == [2, 2, 1]


async def test_an_error_fails_its_group_and_not_the_next() -> None:
    recorder = Recorder()
    recorder.gate.set()
    commit = GroupCommit(recorder)
    with pytest.raises(ValueError, match="negative"):
        await commit.submit(-1)
    assert await commit.submit(1) == 10


async def test_one_bad_item_does_not_fail_its_neighbours_when_they_may_be_tried_alone() -> None:
    recorder = Recorder()
    recorder.gate.set()
    commit = GroupCommit(recorder, retry_alone=lambda error: isinstance(error, ValueError))
    outcomes = await asyncio.gather(*(commit.submit(n) for n in (1, -2, 3)), return_exceptions=True)
    assert outcomes[0] == 10
    assert isinstance(outcomes[1], ValueError)
    assert outcomes[2] == 30


async def test_a_caller_that_goes_away_does_not_disturb_the_others() -> None:
    recorder = Recorder()
    commit = GroupCommit(recorder)
    gone, stays = commit.enqueue(1), commit.enqueue(2)
    gone.cancel()
    recorder.gate.set()
    assert await stays == 20
    await commit.drain()
