"""The pure ordering function at windows of 32 to 4,096 jobs: microseconds a call, and a job.

Once with named prefixes, and once where the order must find what prompts of 2,048 tokens share.

Run: python -m benchmarks.order [--rounds 5] [--json FILE]
"""

import random
import sys
import time
from dataclasses import replace
from functools import partial

from benchmarks import measure
from benchmarks.measure import Figure
from core.settings import OrderSettings
from queues.order import Item, Load, Rules, Shares, choose
from queues.prefixes import trail_of

WINDOWS = (32, 128, 512, 1024, 4096)
CLASSES = ("premium", "standard", "bulk")
NOW = 1_000_000.0
RULES = Rules.of(OrderSettings())


def window(size: int, seed: int = 7) -> list[Item]:
    """Three classes, twenty tenants, a third with one of eight prefixes, a tenth with a deadline."""
    rng = random.Random(seed)  # noqa: S311 - an example, not a secret
    return [
        Item(
            key=f"job_{number:06}",
            service_class=rng.choice(CLASSES),
            tenant=f"tenant-{rng.randrange(20)}",
            priority=rng.randrange(10),
            cost=rng.randrange(50, 2000),
            arrived=NOW - rng.random() * 100,
            deadline=NOW + rng.random() * 60 if rng.random() < 0.1 else None,
            prefix=f"prefix-{rng.randrange(8)}" if rng.random() < 0.33 else None,
            prefix_tokens=200,
        )
        for number in range(size)
    ]


def nameless(size: int, seed: int = 7) -> list[Item]:
    """The same, and every prompt begins with one of 64 heads of 512 tokens, all alike in their first 128."""
    rng = random.Random(seed)  # noqa: S311 - likewise
    common = "Read this. " * 47
    trails = [
        trail_of([common, f"head {number % 64} " * 190, f"own {rng.random()} " * 280])
        for number in range(size)
    ]
    return [
        replace(item, prefix=None, prefix_tokens=0, trail=trail)
        for item, trail in zip(window(size, seed), trails, strict=True)
    ]


def one_round(items: list[Item]) -> dict[str, float]:
    """Half of the window is taken, as a refill takes it."""
    load = Load(now=NOW, limit=len(items) // 2, unreserved=len(items) // 2)
    repeats = max(1, 20_000 // len(items))
    began = time.perf_counter()
    for _ in range(repeats):
        choose(items, Shares(), RULES, load)
    return {"us": 1e6 * (time.perf_counter() - began) / repeats}


def main() -> int:
    given = measure.parser(__doc__, rounds=5).parse_args()
    runs = {f"window of {size}": (size, window(size)) for size in WINDOWS}
    runs |= {f"window of {size}, no names": (size, nameless(size)) for size in WINDOWS}
    found = measure.interleaved(
        given.rounds, {name: partial(one_round, items) for name, (_, items) in runs.items()}
    )
    rows = [Figure(f"{name}: a call", tuple(one["us"]), "µs") for name, one in found.items()]
    rows += [
        Figure(f"{name}: a job of it", tuple(us / runs[name][0] for us in one["us"]), "µs")
        for name, one in found.items()
    ]
    return measure.report("order", rows, to=given.json)


if __name__ == "__main__":
    sys.exit(main())
