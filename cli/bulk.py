"""`penstock submit --file`: many jobs in few requests, a progress bar, and the answers as they come."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.client import TERMINAL, ApiRefused, ApiUnreachable, open_async, raise_for_refusal
from cli.console import emit, say
from core.errors import BadInput
from core.settings import load_settings

_CHUNK: Final = 1000
_CHUNK_BYTES: Final = 900_000  # below the API's default limit of a body, 1 MiB
_POLLERS: Final = 16


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file, numbered from 1, as the body of a job."""

    number: int
    body: dict[str, Any]


def submit_file(path: Path, terms: dict[str, Any], *, system: str | None, wait: bool, as_json: bool) -> int:
    """The exit code: 0 when every line was accepted and, with `wait`, every job completed."""
    lines = read_lines(_text(path), terms, system=system)
    return asyncio.run(_Submission(wait=wait, as_json=as_json).run(lines))


def read_lines(text: str, terms: dict[str, Any], *, system: str | None) -> list[Line]:
    """Raises `BadInput` that names every bad line, before anything is sent."""
    lines, problems = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            lines.append(Line(number, {**terms, **_body(line, system)}))
        except ValueError as problem:
            problems.append(f"line {number}: {problem}")
    if problems:
        raise BadInput("nothing was sent.\n" + "\n".join(problems))
    if not lines:
        raise BadInput("the file has no line with a job.")
    return lines


def _body(line: str, system: str | None) -> dict[str, Any]:
    try:
        body = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ValueError('not an object such as {"prompt": "…"}')  # noqa: TRY004 - bad input, not a bad call
    if ("prompt" in body) == ("messages" in body):
        raise ValueError('needs either "prompt" or "messages"')
    if system is not None and "prompt" in body:
        question = {"role": "user", "content": body.pop("prompt")}
        body["messages"] = [{"role": "system", "content": system}, question]
    return body


def _text(path: Path) -> str:
    if str(path) == "-":
        return sys.stdin.read()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read ({error}).") from error


def chunks(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Requests that stay below the API's limits of number and size."""
    chunk: list[Line] = []
    size = 0
    for line in lines:
        weight = len(orjson.dumps(line.body)) + 1
        if chunk and (len(chunk) == _CHUNK or size + weight > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(line)
        size += weight
    if chunk:
        yield chunk


class _Submission:
    def __init__(self, *, wait: bool, as_json: bool) -> None:
        self._settings = load_settings()
        self._wait = wait
        self._as_json = as_json
        self._bad = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )

    async def run(self, lines: Sequence[Line]) -> int:
        async with open_async(self._settings) as http:
            with self._progress:
                try:
                    jobs = await self._send_all(http, lines)
                    if self._wait:
                        await self._collect(http, jobs)
                except httpx.TransportError as error:
                    raise ApiUnreachable(f"no API answers at {self._settings.url} ({error}).") from error
        if self._bad:
            say(f"{self._bad} of {len(lines)} lines did not complete")
        return 1 if self._bad else 0

    async def _send_all(self, http: httpx.AsyncClient, lines: Sequence[Line]) -> list[tuple[int, str]]:
        sent: list[tuple[int, str]] = []
        bar = self._progress.add_task("submitted", total=len(lines))
        for chunk in chunks(lines):
            for line, outcome in zip(chunk, await _send(http, chunk), strict=True):
                job = outcome.get("job")
                if job is None:
                    self._refused(line, outcome.get("error") or {})
                else:
                    sent.append((line.number, job["id"]))
                    if not self._wait:
                        self._accepted(line, job)
            self._progress.advance(bar, len(chunk))
        return sent

    async def _collect(self, http: httpx.AsyncClient, jobs: Sequence[tuple[int, str]]) -> None:
        bar = self._progress.add_task("finished", total=len(jobs))
        remaining = iter(jobs)

        async def poll() -> None:
            for number, job_id in remaining:  # shared: every poller takes the next
                self._finished(number, await _wait_for(http, job_id))
                self._progress.advance(bar)

        # Not a TaskGroup: it would wrap the one error that the person must read.
        await asyncio.gather(*(poll() for _ in range(_POLLERS)))

    def _accepted(self, line: Line, job: dict[str, Any]) -> None:
        self._print({"line": line.number, **job}, f"{line.number}\t{job['id']}")

    def _refused(self, line: Line, error: dict[str, Any]) -> None:
        self._bad += 1
        reason = error.get("detail") or error.get("message") or "refused"
        if self._as_json:
            emit({"line": line.number, "error": error})
        say(f"line {line.number}: {reason}")

    def _finished(self, number: int, job: dict[str, Any]) -> None:
        if job["status"] != "completed":
            self._bad += 1
        text = (job.get("output") or {}).get("text") or job["status"]
        self._print({"line": number, **job}, f"{number}\t{text}")

    def _print(self, value: dict[str, Any], plain: str) -> None:
        if self._as_json:
            emit(value)
        else:
            sys.stdout.write(plain.replace("\n", " ") + "\n")


async def _send(http: httpx.AsyncClient, chunk: Sequence[Line]) -> list[dict[str, Any]]:
    """The outcomes in order; waits and tries again while the platform has no room."""
    while True:
        answer = await http.post("/v1/jobs/bulk", json={"jobs": [line.body for line in chunk]})
        try:
            raise_for_refusal(answer)
        except ApiRefused as refusal:
            if not refusal.retryable:
                raise
            await asyncio.sleep(refusal.wait)
        else:
            outcomes: list[dict[str, Any]] = answer.json()["data"]
            return outcomes


async def _wait_for(http: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    while True:
        answer = await http.get(f"/v1/jobs/{job_id}", params={"wait": 30})
        raise_for_refusal(answer)
        job: dict[str, Any] = answer.json()
        if job["status"] in TERMINAL:
            return job
