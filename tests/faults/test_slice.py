"""The part of the harness that CI plays: about three minutes; `make faults` plays all of it."""

import asyncio
import secrets
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.programme import SLICE, SLICE_MUTANTS
from tests.faults.run import Play, Servers, line_of, missed, play, play_mutants, summary

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]


def test_nothing_is_lost_doubled_or_stuck_and_a_missing_fence_is_noticed(tmp_path: Path) -> None:
    how = Play(tmp_path, seed=secrets.randbelow(10_000), scale=0.5)

    with ExitStack() as stack:
        servers = Servers(tmp_path / "servers", stack)
        verdicts = asyncio.run(play(SLICE, how, servers))
        mutants = asyncio.run(play_mutants(how, servers, SLICE_MUTANTS))

    against = summary(verdicts)[1]
    assert not against, "\n".join([f"seed {how.seed}", *against, *map(line_of, verdicts)])
    assert mutants
    assert missed(mutants) == []
