"""The same shuffled batch in prefix order and in the order of its file: what the engine's cache makes of it.

Run: python -m benchmarks.batch_prefixes [--engine llamacpp --engine sglang] [--lines 1024] [--json FILE]
Each arm is a platform of its own on real services, with a cold engine; the order is switched by a setting.
"""

import asyncio
import random
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table

from benchmarks import load, measure
from benchmarks.batches import create, until, upload
from benchmarks.measure import Figure, ratio
from models.catalogue import SGLangModel
from tests.platform import running_platform
from tests.services import Services, open_services

ORDERS: Final = {"prefix order": {}, "file order": {"ORDER__MAX_SHARED_PREFIX_TOKENS": "0"}}
MORE: Final = 2.0  # times the cached share of the file's order
_TOPICS: Final = ("refunds", "parcels", "invoices", "passwords", "returns", "plans", "coupons", "accounts")
_SENTENCES: Final = 40  # of a prefix: about 390 tokens of the bundled model, so that a pool holds a few of 64
_WORDS: Final = (
    "order",
    "refund",
    "address",
    "account",
    "parcel",
    "return",
    "plan",
    "payment",
    "card",
    "day",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one batch: tokens as its usage says, seconds from its creation to its end."""

    prompt: int
    cached: int
    seconds: float

    @property
    def share(self) -> float:
        return self.cached / self.prompt


def prefix(number: int, rng: random.Random) -> str:
    """A system prompt that is like no other from its first words on."""
    sentences = (" ".join(rng.choices(_WORDS, k=8)) for _ in range(_SENTENCES))
    return f"{number} {rng.choice(_TOPICS)}: {'. '.join(sentences)}."


def input_file(path: Path, given: Namespace) -> None:
    rng = random.Random(given.seed)  # noqa: S311 - the same file each time
    prefixes = [prefix(number, rng) for number in range(given.prefixes)]
    numbers = [line % given.prefixes for line in range(given.lines)]
    rng.shuffle(numbers)
    with path.open("wb") as file:
        for line, number in enumerate(numbers):
            question = {"role": "user", "content": f"Where is my order A{1000 + line}"}
            messages = [{"role": "system", "content": prefixes[number]}, question]
            body = {"model": "default", "messages": messages, "max_tokens": 4, "temperature": 0}
            asked = {"custom_id": f"c{line}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(orjson.dumps(asked) + b"\n")


def catalogue(engine: str, given: Namespace) -> str:
    entry = {"name": "default", "engine": engine, "path": "bundled:support-tiny", "slots": given.slots}
    if engine == "sglang":
        # A pool that holds a few prefixes of the many, as slots do.
        entry |= {"device": "cpu", "python": str(given.sglang_python), "memory_fraction": 0.3}
        entry |= {"kv_tokens": given.kv_tokens}
    lines = (f"{key} = {orjson.dumps(value).decode()}" for key, value in entry.items())
    return "\n".join(["[[model]]", *lines, ""])


def play(services: Services, engine: str, order: Mapping[str, str], given: Namespace) -> Outcome:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models.toml").write_text(catalogue(engine, given))
        input_file(folder / "in.jsonl", given)
        settings = {"CATALOGUE": str(folder / "models.toml"), "OVERLOAD__ENABLED": "false", **order}
        processes = ("api", "relay", "upkeep", "worker")
        with running_platform(services, folder, processes=processes, **settings) as platform:
            key = platform.key(f"prefixes-{time.monotonic_ns()}")
            return asyncio.run(run(platform.url, key, folder / "in.jsonl"))


async def run(url: str, key: str, path: Path) -> Outcome:
    async with load.session(url, key, connections=4) as client:
        file_id = await upload(client, path)
        began = time.perf_counter()
        batch: dict[str, Any] = await until(
            client, await create(client, file_id), lambda one: one["completed_at"] is not None
        )
        seconds = time.perf_counter() - began
    if batch["request_counts"]["failed"]:
        raise RuntimeError(f"{batch['request_counts']}")
    usage = batch["usage"]
    return Outcome(usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"], seconds)


def show(engine: str, found: Mapping[str, list[Outcome]]) -> None:
    table = Table("order", "prompt tokens", "cached", "cached ÷ prompt", "seconds", title=engine)
    for order, outcomes in found.items():
        for one in outcomes:
            table.add_row(order, f"{one.prompt}", f"{one.cached}", f"{one.share:.1%}", f"{one.seconds:.1f}")
    Console().print(table)


def figures(engine: str, found: Mapping[str, list[Outcome]]) -> list[Figure]:
    rows = []
    for order, outcomes in found.items():
        rows.append(Figure(f"{engine}, {order}: cached ÷ prompt", tuple(one.share for one in outcomes)))
        rows.append(Figure(f"{engine}, {order}: time", tuple(one.seconds for one in outcomes), "s"))
    ours, theirs = found["prefix order"], found["file order"]
    shares = [one.share for one in ours], [max(one.share, 1e-3) for one in theirs]
    rows.append(ratio(f"{engine}: cached share, prefix ÷ file order", *shares, at_least=MORE))
    times = [one.seconds for one in ours], [one.seconds for one in theirs]
    rows.append(ratio(f"{engine}: time, prefix ÷ file order", *times))
    return rows


def main() -> int:
    parser = measure.parser(__doc__, rounds=1)
    parser.add_argument("--engine", action="append", choices=("llamacpp", "sglang"), help="default llamacpp")
    parser.add_argument("--lines", type=int, default=1024)
    parser.add_argument("--prefixes", type=int, default=64)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--kv-tokens", type=int, default=8192, help="SGLang's pool (default 8192)")
    parser.add_argument("--seed", type=int, default=7, help="of the shuffled file")
    default = Path(SGLangModel.model_fields["python"].default)
    parser.add_argument("--sglang-python", type=Path, default=default, help="interpreter that has SGLang")
    given = parser.parse_args()
    rows: list[Figure] = []
    with open_services() as services:
        for engine in given.engine or ["llamacpp"]:
            found: dict[str, list[Outcome]] = {order: [] for order in ORDERS}
            for number in range(given.rounds):
                for order in list(ORDERS)[:: -1 if number % 2 else 1]:
                    found[order].append(play(services, engine, ORDERS[order], given))
            show(engine, found)
            rows += figures(engine, found)
    return measure.report("batch prefixes", rows, to=given.json)


if __name__ == "__main__":
    sys.exit(main())
