"""The tables of docs/explanation/guarantees.md, as one run of the harness gives them."""

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.faults.truth import Verdict, percentiles

BEGIN: Final = "<!-- faults:begin -->"
END: Final = "<!-- faults:end -->"
_HEAD: Final = (
    "| Fault | Submitted | Lost | Doubled | Stuck | Re-executed | Stale finishes refused "
    "| Duplicates delivered | Recovery p50 / p95 (times) | Beside |\n"
    "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --- |"
)


@dataclass
class Record:
    """Everything that a run saw. `mutants` is what was said of each part without which it ran."""

    seed: int
    scale: float
    seconds: float = 0.0
    verdicts: list[Verdict] = field(default_factory=list)
    mutants: dict[str, list[Verdict]] = field(default_factory=dict)


def write_page(page: Path, record: Record) -> None:
    """Replaces what stands between the markers. Raises `ValueError` where they are missing."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{page} has no {BEGIN} and {END}")
    page.write_text("\n".join([f"{before}{BEGIN}", *_lines(record), f"{END}{after}"]))


def _lines(record: Record) -> Iterator[str]:
    jobs = sum(verdict.submitted for verdict in record.verdicts)
    arguments = f"--seed {record.seed}" + (f" --scale {record.scale:g}" if record.scale != 1 else "")
    yield f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}:"
    minutes = f"{record.seconds / 60:.0f} minutes with the mutants"
    yield f'`make faults ARGS="{arguments}"`, {jobs:,} jobs in {minutes}.'
    yield f"\n{_HEAD}"
    yield from (_row(verdict) for verdict in record.verdicts)
    broken = [f"- {v.scenario}: {failure}" for v in record.verdicts for failure in v.failures]
    if broken:
        yield "\nWhat did not hold:\n"
        yield from broken
    if record.mutants:
        yield "\n| Without | The harness reports |\n| --- | --- |"
        yield from (f"| the {name} | {_noticed(verdicts)} |" for name, verdicts in record.mutants.items())


def _row(verdict: Verdict) -> str:
    p50, p95 = percentiles(verdict.recoveries)
    recovery = f"{p50:.1f} / {p95:.1f} s ({len(verdict.recoveries)})" if verdict.recoveries else "-"
    cells = (
        verdict.scenario,
        verdict.submitted,
        verdict.lost,
        verdict.doubled,
        verdict.stuck,
        verdict.executed_again,
        verdict.refused,
        verdict.duplicates,
        recovery,
        "; ".join(verdict.notes),
    )
    return f"| {' | '.join(map(str, cells))} |"


def _noticed(verdicts: Sequence[Verdict]) -> str:
    counts = {
        "lost": sum(v.lost for v in verdicts),
        "doubled": sum(v.doubled for v in verdicts),
        "stuck": sum(v.stuck for v in verdicts),
    }
    seen = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return f"{seen or 'nothing'} of {sum(v.submitted for v in verdicts)}"
