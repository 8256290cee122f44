"""The collector's settings."""

import subprocess
import sys

PROGRAM = """
import gc
from core.collector import spare_long_lived

spare_long_lived()
frozen, threshold = gc.get_freeze_count(), gc.get_threshold()[0]


class Knot:
    pass


knots = 0


def count(phase, info):
    global knots
    knots += info["collected"] if phase == "stop" else 0


gc.callbacks.append(count)
for _ in range(100_000):
    knot = Knot()
    knot.itself = knot
print(frozen > 1000, threshold > 700, knots > 50_000)
"""


def test_what_lives_long_is_spared_and_cycles_are_still_collected() -> None:
    """In a process of its own: the settings are the process's."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["True", "True", "True"]
