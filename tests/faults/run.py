"""Nothing lost, nothing doubled, nothing stuck: real processes under every fault, one line for each.

Run: python -m tests.faults.run [--seed 7] [--only worker_killed] [--for 3600] [--slice]
Exits non-zero unless every scenario holds and every mutant is noticed. The same seed plays the same faults.
"""

import argparse
import asyncio
import json
import os
import platform
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import uvloop

from tests.faults.page import Record, write_page
from tests.faults.programme import FULL, MUTANTS, SLICE, Part
from tests.faults.servers import Private, private_servers, private_services
from tests.faults.stage import Stage, staged
from tests.faults.truth import Verdict, percentiles
from tests.services import Services, open_services

_HEAD: Final = (
    f"{'scenario':<34}{'submitted':>10}{'lost':>6}{'doubled':>9}{'stuck':>7}{'re-executed':>13}"
    f"{'refused':>9}{'duplicates':>12}{'recovery p50/p95':>22}{'5xx':>6}{'s':>7}"
)

_LEAST_JOBS: Final = 20_000


@dataclass(frozen=True, slots=True)
class Play:
    """How a programme is played."""

    folder: Path
    seed: int
    only: tuple[str, ...] = ()
    scale: float = 1.0
    before: str = ""


class Servers:
    """Private servers are started once, for the first part that needs them."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._private: Private | None = None

    def private(self) -> Private:
        if self._private is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._private = self._stack.enter_context(private_servers(self._folder))
        return self._private


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def line_of(verdict: Verdict) -> str:
    p50, p95 = percentiles(verdict.recoveries)
    recovery = f"{p50:.1f} / {p95:.1f} s ({len(verdict.recoveries)})" if verdict.recoveries else "-"
    text = (
        f"{verdict.scenario:<34}{verdict.submitted:>10}{verdict.lost:>6}{verdict.doubled:>9}"
        f"{verdict.stuck:>7}{verdict.executed_again:>13}{verdict.refused:>9}{verdict.duplicates:>12}"
        f"{recovery:>22}{verdict.server_errors:>6}{verdict.seconds:>7.0f}"
    )
    extras = [*(f"FAILED: {failure}" for failure in verdict.failures), *verdict.notes]
    return "\n".join([text, *(f"    {extra}" for extra in extras)])


async def play(parts: Sequence[Part], how: Play, servers: Servers) -> list[Verdict]:
    """In their order, those that mostly wait two at a time."""
    verdicts: list[Verdict] = []
    for group in _groups(parts):
        async with asyncio.TaskGroup() as tasks:
            played = [
                tasks.create_task(play_part(part, replace(how, seed=how.seed + number), servers))
                for number, part in group
            ]
        for task in played:
            verdicts += task.result()
    return verdicts


def _groups(parts: Sequence[Part]) -> Iterator[list[tuple[int, Part]]]:
    group: list[tuple[int, Part]] = []
    for number, part in enumerate(parts):
        if group and not part.beside:
            yield group
            group = []
        group.append((number, part))
    if group:
        yield group


async def play_part(part: Part, how: Play, servers: Servers) -> list[Verdict]:
    verdicts: list[Verdict] = []
    chosen = [s for s in part.scenarios if not how.only or s.__name__ in how.only]
    if not chosen:
        return verdicts
    try:
        async with opened(part, how, servers) as stage:
            for scenario in chosen:
                name = scenario.__name__
                async with stage.act(name.replace("_", "-"), patience=part.patience) as act:
                    await scenario(act)
                act.verdict.scenario = name.replace("_", " ")
                verdicts.append(act.verdict)
                say(line_of(act.verdict))
    except Exception as error:  # noqa: BLE001 - a part that cannot be played is a line, too
        failed = Verdict(part.name, failures=[f"{type(error).__name__}: {error}"])
        verdicts.append(failed)
        say(line_of(failed))
    return verdicts


@asynccontextmanager
async def opened(part: Part, how: Play, servers: Servers) -> AsyncIterator[Stage]:
    folder = how.folder / f"{part.name.replace(' ', '-')}-{secrets.token_hex(2)}"
    await asyncio.to_thread(folder.mkdir, parents=True)
    spaces = services_for(part, servers)
    # In a thread: what makes the name spaces runs event loops of its own.
    services, private = await asyncio.to_thread(spaces.__enter__)
    try:
        async with staged(
            services,
            folder,
            part.shape,
            seed=how.seed,
            private=private,
            scale=how.scale,
            before=how.before,
        ) as stage:
            yield stage
    finally:
        await asyncio.to_thread(spaces.__exit__, None, None, None)


@contextmanager
def services_for(part: Part, servers: Servers) -> Iterator[tuple[Services, Private | None]]:
    if part.private:
        private = servers.private()
        with private_services(private, f"faults-{secrets.token_hex(4)}") as services:
            yield services, private
    else:
        with open_services() as services:
            yield services, None


async def play_mutants(
    how: Play, servers: Servers, parts: Sequence[Part] = MUTANTS
) -> dict[str, list[Verdict]]:
    """What the scenarios said of each mutant that they met."""
    met = {}
    for group in _groups(parts):
        async with asyncio.TaskGroup() as tasks:
            played = [(part, tasks.create_task(play_part(part, how, servers))) for _, part in group]
        for part, task in played:
            if verdicts := task.result():
                met[part.name] = verdicts
                seen = "NOT NOTICED" if is_missed(part, verdicts) else "noticed"
                say(f"mutant without {part.name}: {seen}")
    return met


def missed(met: Mapping[str, Sequence[Verdict]]) -> list[str]:
    """The mutants that were not caught at what they do."""
    return [part.name for part in MUTANTS if part.name in met and is_missed(part, met[part.name])]


def is_missed(part: Part, verdicts: Sequence[Verdict]) -> bool:
    """One under which nothing is answered at all does not work, and shows nothing."""
    return not any(getattr(v, part.shows) and v.statuses.get("completed") for v in verdicts)


def summary(verdicts: Sequence[Verdict]) -> tuple[str, list[str]]:
    """One line, and what speaks against the run."""
    jobs = sum(v.submitted for v in verdicts)
    refused, repeated = sum(v.refused for v in verdicts), sum(v.duplicates for v in verdicts)
    broken = [v.scenario for v in verdicts if not v.holds]
    against = [f"{name} does not hold" for name in broken]
    if verdicts and not (refused and repeated):
        against.append("nothing was tested: no stale finish or no duplicate delivery occurred")
    text = (
        f"{len(verdicts)} scenarios, {jobs} jobs, lost {sum(v.lost for v in verdicts)},"
        f" doubled {sum(v.doubled for v in verdicts)}, stuck {sum(v.stuck for v in verdicts)},"
        f" stale finishes refused {refused}, duplicates delivered {repeated}"
    )
    return text, against


async def perform(arguments: argparse.Namespace, folder: Path) -> int:
    """Rounds with new seeds until the time is over; one round without a time."""
    began = time.monotonic()
    end = began + arguments.seconds
    how = Play(folder, arguments.seed, tuple(arguments.only), arguments.scale, arguments.before)
    record = Record(arguments.seed, arguments.scale)
    failures: list[str] = []
    with ExitStack() as stack:
        servers = Servers(folder / "servers", stack)
        while True:
            say(f"seed {how.seed}, {os.cpu_count()} cores, Python {platform.python_version()}\n{_HEAD}")
            if not arguments.mutants:
                verdicts = await play(SLICE if arguments.slice else FULL, how, servers)
                record.verdicts += verdicts
                failures += judged(verdicts, how, is_slice=arguments.slice)
            if not arguments.no_mutants:
                met = await play_mutants(replace(how, scale=min(1.0, how.scale)), servers)
                record.mutants |= met
                failures += [f"the mutant without {name} was not noticed" for name in missed(met)]
            if time.monotonic() >= end:
                break
            how = replace(how, seed=how.seed + 1000)
    record.seconds = time.monotonic() - began
    say(f"{record.seconds / 60:.1f} minutes")
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(record), indent=1) + "\n")
    if arguments.page:
        write_page(arguments.page, record)
    for failure in failures:
        say(f"FAILED: {failure}")
    return 1 if failures else 0


def judged(verdicts: Sequence[Verdict], how: Play, *, is_slice: bool) -> list[str]:
    """Says the sum of a round, and returns what speaks against it. A part of one need not test everything."""
    line, against = summary(verdicts)
    say(line)
    if how.only:
        return [one for one in against if "tested" not in one]
    jobs = sum(verdict.submitted for verdict in verdicts)
    if not is_slice and how.scale >= 1 and jobs < _LEAST_JOBS:
        against.append(f"{jobs} jobs are too few, {_LEAST_JOBS} are to be submitted")
    return against


def scenario_name(text: str) -> str:
    """As it is typed, with spaces or hyphens too."""
    name = text.strip().replace("-", "_").replace(" ", "_")
    known = {scenario.__name__ for part in (*FULL, *SLICE, *MUTANTS) for scenario in part.scenarios}
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"; do you mean {near[0]}?" if near else f": {', '.join(sorted(known))}"
        raise argparse.ArgumentTypeError(f"there is no scenario {text!r}{hint}")
    return name


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="of the faults")
    parser.add_argument(
        "--only", action="append", default=[], type=scenario_name, help="a scenario, by its name; repeatable"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="shrinks every load")
    parser.add_argument("--before", default="", help="the commit that a rollout begins with")
    parser.add_argument("--for", dest="seconds", type=float, default=0, help="repeat for so many seconds")
    parser.add_argument("--slice", action="store_true", help="the part that CI plays")
    parser.add_argument("--no-mutants", action="store_true", help="leave the mutants out")
    parser.add_argument("--mutants", action="store_true", help="play nothing but the mutants")
    parser.add_argument("--keep", type=Path, help="keep the logs in this folder")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--page", type=Path, help="put the tables into this page, between its markers")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = arguments.keep
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-faults-")))
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started is ended, too
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(perform(arguments, folder))


if __name__ == "__main__":
    sys.exit(main())
