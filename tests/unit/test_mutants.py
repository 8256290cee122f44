"""The fault harness's mutants load; one that does not stops its process rather than pass for healthy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.programme import MUTANTS

ROOT = Path(__file__).resolve().parents[2]


def start(mutant: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "tests/faults/mutants"), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "FAULTS_MUTANT": mutant}
    return subprocess.run(
        [sys.executable, "-c", "print('started')"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("mutant", [part.name for part in MUTANTS])
def test_a_mutant_loads_before_everything_else(mutant: str) -> None:
    done = start(mutant)

    assert (done.returncode, done.stdout) == (0, "started\n"), done.stderr


def test_a_mutant_that_does_not_load_stops_its_process() -> None:
    done = start("no such mutant")

    assert (done.returncode, done.stdout) == (70, "")
