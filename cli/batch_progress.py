"""What a person sees of a batch while it comes and while it runs; a pipe sees results alone."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from cli.client import Client
from cli.console import emit, say
from core.errors import NotFound

_LOOK_EVERY: Final = 1.0  # seconds
_ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_SHOWN: Final = 20


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} lines/s" if task.speed else "", style="progress.data.speed")


def _progress(*columns: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *columns,
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def upload(client: Client, path: Path) -> dict[str, Any]:
    """The uploaded file."""
    with (
        _progress(DownloadColumn(), TransferSpeedColumn()) as progress,
        progress.open(path, "rb", description="uploading") as file,
    ):
        form = {"data": {"purpose": "batch"}, "files": {"file": (path.name, file)}}
        uploaded: dict[str, Any] = client.call("POST", "/v1/files", **form)
    return uploaded


def watch(client: Client, batch_id: str, *, as_json: bool) -> int:
    """Until the batch has ended; the exit code, 0 where all its lines completed."""
    batch: dict[str, Any] = {}
    with _progress(MofNCompleteColumn(), _Rate()) as progress:
        bar = progress.add_task("waiting", total=None)
        for batch in _changes(client, batch_id):
            counts = batch["request_counts"]
            progress.update(
                bar,
                description=batch["status"],
                total=counts["total"] or None,
                completed=counts["completed"] + counts["failed"],
            )
            if as_json:
                emit(batch)
    if not as_json:
        _tell_end(batch)
    counts = batch["request_counts"]
    return 0 if batch["status"] == "completed" and not counts["failed"] else 1


def _changes(client: Client, batch_id: str) -> Iterator[dict[str, Any]]:
    last: dict[str, Any] | None = None
    while last is None or last["status"] not in _ENDED:
        if last is not None:
            time.sleep(_LOOK_EVERY)
        batch: dict[str, Any] = client.call("GET", f"/v1/batches/{batch_id}")
        if batch != last:
            yield batch
        last = batch


def _tell_end(batch: dict[str, Any]) -> None:
    counts = batch["request_counts"]
    say(f"{batch['status']}: {counts['completed']} of {counts['total']} lines completed")
    for problem in problems_of(batch):
        say(problem)
    if batch["error_file_id"]:
        say(f"`penstock batch output --errors {batch['id']}` says why the others did not")


def problems_of(batch: dict[str, Any]) -> list[str]:
    """Why its file was refused, line by line."""
    found = (batch["errors"] or {}).get("data", [])
    said = [f"line {one['line']}: {one['message']}" if one["line"] else one["message"] for one in found]
    return [*said[:_SHOWN], f"and {len(said) - _SHOWN} more"] if len(said) > _SHOWN else said


def download(client: Client, batch_id: str, *, to: Path | None, errors: bool, partial: bool) -> None:
    """Raises `NotFound` where there is no such file."""
    path, parameters = f"/v1/batches/{batch_id}/output", {"partial": partial}
    if errors:
        file_id = client.call("GET", f"/v1/batches/{batch_id}")["error_file_id"]
        if file_id is None:
            raise NotFound("The batch has no error file: it has not ended, or all its lines completed.")
        path, parameters = f"/v1/files/{file_id}/content", {}
    pieces = client.download(path, parameters)
    if to is None:
        _write(sys.stdout.buffer, pieces)
        return
    with to.open("wb") as file:
        _write(file, pieces)


def _write(file: BinaryIO, pieces: Iterator[bytes]) -> None:
    file.writelines(pieces)
    file.flush()
