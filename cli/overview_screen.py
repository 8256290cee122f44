"""The overview of the platform as text: what waits, why, and who works."""

from __future__ import annotations

from collections import defaultdict, deque
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import RenderableType

_BLOCKS: Final = "▁▂▃▄▅▆▇█"
_KEPT: Final = 30  # frames
_TONES: Final = {"bad": "bold red", "warn": "yellow"}
_JOBS: Final = 6
_CHANGES: Final = 3


class History:
    """The last values of each number, for its line of blocks."""

    def __init__(self) -> None:
        self._values: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def line(self, name: str, value: float) -> str:
        """Notes the value, and draws it after those before."""
        values = self._values[name]
        values.append(value)
        return sparkline(values)


def sparkline(values: Sequence[float] | deque[float]) -> str:
    """From nothing to the largest of them."""
    top = max(values, default=0.0)
    if top <= 0:
        return _BLOCKS[0] * len(values)
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, int(value / top * len(_BLOCKS)))] for value in values)


def render(overview: dict[str, Any], history: History, *, state: str = "live") -> Group:
    """`state` says in a word how fresh it is."""
    return Group(
        _head(overview, history, state),
        *_attention(overview["attention"]),
        _queues(overview, history),
        _workers(overview["workers"]),
        *_lists(overview),
    )


def _head(overview: dict[str, Any], history: History, state: str) -> Text:
    totals = overview["totals"]
    speed = sum(model["tokens_per_second"] for model in overview["models"])
    parts = (
        ("Penstock", "bold"),
        f"  {_clock(overview['at'])} {state}  ",
        f"waiting {totals['waiting']} {history.line('waiting', totals['waiting'])}  ",
        f"running {totals['running']}/{totals['slots']} {history.line('running', totals['running'])}  ",
        f"tokens/s {speed:.0f} {history.line('speed', speed)}  ",
        f"dead letters {totals['dead_letters']}",
    )
    return Text.assemble(*parts)


def _attention(concerns: Iterable[dict[str, str]]) -> Iterator[Text]:
    found = [
        Text.assemble((one["sentence"], _TONES[one["tone"]]), " ", (one["remedy"], "italic"))
        for one in concerns
    ]
    yield from found or [Text("All is well: nothing needs you.", "green")]


def _queues(overview: dict[str, Any], history: History) -> Table:
    columns = (
        "model",
        "class",
        "waiting",
        "",
        "tokens",
        "released",
        "oldest",
        "predicted",
        "jobs/s",
        "level",
    )
    table = _table(columns, right=(2, 4, 5, 6, 7, 8))
    for model in overview["models"]:
        level = f"{model['level']} {model['level_name']}"
        for number, queue in enumerate(model["queues"]):
            name = f"{model['name']}/{queue['service_class']}"
            table.add_row(
                model["name"] if number == 0 else "",
                queue["service_class"],
                str(queue["waiting"]),
                history.line(name, queue["waiting"]),
                str(queue["tokens"]),
                str(queue["released"]),
                span(queue["oldest_wait_ms"] if queue["waiting"] else None),
                span(queue["predicted_wait_ms"]),
                _number(queue["jobs_per_second"]),
                level if number == 0 else ("turned away" if queue["is_shed"] else ""),
            )
    return table


def _workers(workers: Sequence[dict[str, Any]]) -> RenderableType:
    if not workers:
        return Text("No worker is alive. Start one: penstock worker", "bold red")
    table = _table(
        ("worker", "state", "model", "slots", "tokens/s", "cached", "gpu", "finished"), right=(4, 5, 7)
    )
    for worker in workers:
        for model, stats in worker["models"].items():
            table.add_row(
                worker["name"],
                worker["state"],
                model,
                f"{stats.get('running', 0)}/{stats['slots']}",
                _number(stats.get("tokens_per_second")),
                _share(stats.get("cached_share")),
                "; ".join(_gpu(gpu) for gpu in worker["gpus"]) or "none",
                str(stats.get("finished", "-")),
            )
    return table


def _lists(overview: dict[str, Any]) -> Iterator[Table]:
    jobs = [*overview["jobs"]["running"], *overview["jobs"]["waiting"]][:_JOBS]
    if failing := overview["jobs"]["failing"][:_JOBS]:
        yield _jobs("failing", failing)
    if jobs:
        yield _jobs("running and waiting longest", jobs)
    if batches := [batch for batch in overview["batches"] if not batch["finished_at"]][:_JOBS]:
        table = _table(("batch", "status", "done", "failed"), right=(2, 3))
        for batch in batches:
            done = f"{batch['completed'] + batch['failed']}/{batch['total']}"
            table.add_row(batch["id"], batch["status"], done, str(batch["failed"]))
        yield table
    if changes := overview["changes"][:_CHANGES]:
        table = _table(("changed", "model", "level", "why", "who"))
        for one in changes:
            level = f"{one['before']} → {one['after']}"
            table.add_row(_clock(one["at"]), one["model"], level, one["reason"] or one["rule"], one["actor"])
        yield table


def _jobs(title: str, jobs: Iterable[dict[str, Any]]) -> Table:
    table = _table((title, "status", "tenant", "model", "class", "waited", "ran", "error"), right=(5, 6))
    for job in jobs:
        table.add_row(
            job["id"],
            job["status"],
            job["tenant"],
            job["model"],
            job["service_class"],
            span(job["wait_ms"]),
            span(job["run_ms"]),
            (job["error"] or {}).get("code", ""),
        )
    return table


def _table(columns: Sequence[str], *, right: Sequence[int] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number in right else "left", no_wrap=name != "why")
    return table


def span(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    seconds = milliseconds / 1000
    if seconds < 1:
        return f"{milliseconds:.0f} ms"
    if seconds < 100:  # noqa: PLR2004 - then minutes read better
        return f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"  # noqa: PLR2004


def _gpu(gpu: dict[str, Any]) -> str:
    return f"{_share(gpu['utilization'])} {gpu['memory_used'] / 2**30:.0f}/{gpu['memory'] / 2**30:.0f} GiB"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _clock(time: str) -> str:
    return f"{datetime.fromisoformat(time).astimezone():%H:%M:%S}"
