"""`penstock batch estimate`: the checks of a batch on this machine, and what its lines would take."""

import asyncio
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import typer

from cli.client import Client
from cli.console import emit, say
from core.settings import Settings, load_settings
from models.catalogue import find_catalogue
from models.limits import Complexity
from models.service_class import ServiceClass
from queues.batches.checking import Check, Report, check_file
from queues.batches.spool import Spool

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tokens are estimates where only counting would tell; `shared` is the part of prompts that repeats."""

    lines: int
    prompt_tokens: int
    answer_tokens: int  # at most
    shared: float
    prefixes: int
    tokens_per_second: float | None
    seconds: float | None


def run_estimate(client: Client, file: Path, *, endpoint: str, rate: float | None, as_json: bool) -> int:
    """The exit code: 1 where the file would be refused."""
    with TemporaryDirectory(prefix="penstock-estimate-") as name:
        report = asyncio.run(check_file(_check(load_settings(), file, Path(name), endpoint)))
        if report.problems:
            return _refuse(report, as_json=as_json)
        found = measure(Spool(Path(name)), rate or measured_rate(client))
    if as_json:
        emit(asdict(found))
    else:
        _show(found)
    return 0


def _check(settings: Settings, file: Path, folder: Path, endpoint: str) -> Check:
    return Check(
        file=file,
        folder=folder,
        endpoint=endpoint,
        catalogue=find_catalogue(settings),
        complexity=settings.complexity,
        service_class=ServiceClass.BULK,
        ceiling=Complexity.HIGH,
        degradation=None,
        longest_line=settings.batches.longest_line,
        most_lines=settings.batches.most_lines,
        shared_prefix=settings.order.max_shared_prefix_tokens,
    )


def _refuse(report: Report, *, as_json: bool) -> int:
    for problem in report.problems:
        if as_json:
            emit(problem)
        else:
            say(f"line {problem['line']}: {problem['message']}" if problem["line"] else problem["message"])
    say(f"{report.bad} lines would be refused, and with them the file")
    return 1


def measure(spool: Spool, rate: float | None) -> Estimate:
    prompt = answer = 0
    groups: Counter[tuple[str, int]] = Counter()
    for start in range(0, len(spool), _PAGE):
        for row in spool.rows(start, _PAGE):
            prompt += row["prompt_tokens"]
            answer += row["request"]["max_tokens"]
            if row["prefix"] is not None:
                groups[row["prefix"], row["prefix_tokens"]] += 1
    # The first of a group computes what the others find.
    repeated = sum(tokens * (lines - 1) for (_, tokens), lines in groups.items())
    return Estimate(
        lines=len(spool),
        prompt_tokens=prompt,
        answer_tokens=answer,
        shared=repeated / prompt if prompt else 0.0,
        prefixes=sum(lines > 1 for lines in groups.values()),
        tokens_per_second=rate,
        seconds=(prompt + answer) / rate if rate else None,
    )


def measured_rate(client: Client) -> float | None:
    """Tokens a second of the tenant's last batch that completed, prompt and answer together."""
    for batch in client.call("GET", "/v1/batches", params={"limit": 100})["data"]:
        began, ended = batch["in_progress_at"], batch["finalizing_at"]
        if batch["status"] == "completed" and batch["usage"] and began and ended:
            tokens: int = batch["usage"]["total_tokens"]
            seconds: int = ended - began
            return tokens / max(1, seconds)
    return None


def _show(found: Estimate) -> None:
    rows: list[tuple[str, Any]] = [
        ("lines", found.lines),
        ("prompt tokens", f"about {found.prompt_tokens}"),
        ("answer tokens", f"at most {found.answer_tokens}"),
        ("shared prefixes", f"{found.prefixes}, {found.shared:.0%} of the prompts' tokens"),
    ]
    if found.seconds is None:
        rows.append(("time", "unknown: no batch has completed yet; --rate takes tokens a second"))
    else:
        longest = timedelta(seconds=round(found.seconds))
        rows.append(("time", f"at most {longest} at {found.tokens_per_second:.0f} tokens a second"))
    for name, value in rows:
        typer.echo(f"{name}\t{value}")
