"""The API as the command line sees it: every failure becomes one sentence."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx
import orjson

from core.errors import ConfigurationMistake, PenstockError, Unauthenticated
from core.settings import Settings

# Longer than the API's longest poll, 60 s, and than the keep-alive of an event stream.
_TIMEOUT: Final = httpx.Timeout(5, read=75)
_RECONNECTS: Final = 5
TERMINAL: Final = frozenset({"completed", "failed", "cancelled", "expired"})


class ApiUnreachable(PenstockError):
    code = "api_unreachable"
    retryable = True


class ApiRefused(PenstockError):
    """The API said no; `code` is the API's own."""

    def __init__(self, message: str, *, code: str, status: int, wait: float) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.wait = wait
        self.retryable = status in {429, 503}


@dataclass(frozen=True, slots=True)
class ServerEvent:
    id: str
    kind: str
    data: dict[str, Any]


class Client:
    """One connection pool. `transport` is for tests."""

    def __init__(self, settings: Settings, transport: httpx.BaseTransport | None = None) -> None:
        self.address = settings.url
        self._http = httpx.Client(
            base_url=settings.url, headers=_headers(settings), timeout=_TIMEOUT, transport=transport
        )

    def call(self, method: str, path: str, **request: Any) -> Any:
        """The answer's JSON. Raises `ApiRefused`, `ApiUnreachable` or `Unauthenticated`."""
        try:
            answer = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        raise_for_refusal(answer)
        return orjson.loads(answer.content) if answer.content else None

    def download(self, path: str, parameters: dict[str, Any]) -> Iterator[bytes]:
        """The answer in pieces. Raises as `call` does."""
        try:
            with self._http.stream("GET", path, params=parameters) as answer:
                if answer.is_error:
                    answer.read()
                raise_for_refusal(answer)
                yield from answer.iter_bytes()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def wait(self, job_id: str) -> dict[str, Any]:
        """The job once it is in a terminal state."""
        while True:
            job: dict[str, Any] = self.call("GET", f"/v1/jobs/{job_id}", params={"wait": 30})
            if job["status"] in TERMINAL:
                return job

    def follow(self, job_id: str) -> Iterator[ServerEvent]:
        """The job's events, until `done`; goes on after a lost connection where it stopped."""
        last, failures = "", 0
        while failures < _RECONNECTS:
            try:
                for event in self._events(job_id, last):
                    last, failures = event.id, 0
                    yield event
                    if event.kind == "done":
                        return
            except httpx.TransportError as error:
                problem: Exception | None = error
            else:
                problem = None
            failures += 1
        raise self._unreachable(problem)

    def watch(self, path: str) -> Iterator[ServerEvent]:
        """The events of a stream until the API ends it. Raises `ApiRefused`, `ApiUnreachable`."""
        try:
            yield from self._stream(path, {})
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _events(self, job_id: str, last: str) -> Iterator[ServerEvent]:
        return self._stream(f"/v1/jobs/{job_id}/events", {"Last-Event-ID": last} if last else {})

    def _stream(self, path: str, headers: dict[str, str]) -> Iterator[ServerEvent]:
        with self._http.stream("GET", path, headers=headers) as answer:
            if answer.is_error:
                answer.read()
            raise_for_refusal(answer)
            yield from parse_events(answer.iter_lines())

    def _unreachable(self, problem: Exception | None) -> ApiUnreachable:
        return ApiUnreachable(f"no API answers at {self.address} ({problem or 'the stream ended early'}).")


def open_async(settings: Settings) -> httpx.AsyncClient:
    """For many requests at once."""
    return httpx.AsyncClient(base_url=settings.url, headers=_headers(settings), timeout=_TIMEOUT)


def _headers(settings: Settings) -> dict[str, str]:
    if settings.key is None or not settings.key.get_secret_value():
        raise ConfigurationMistake(
            "PENSTOCK_KEY is not set. `penstock up` prints a key, and `penstock keys create` makes one."
        )
    return {"Authorization": f"Bearer {settings.key.get_secret_value()}"}


def parse_events(lines: Iterable[str]) -> Iterator[ServerEvent]:
    """Server-sent events: fields until a blank line; a line that starts with a colon is a comment."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and name in fields else value
        else:
            if "data" in fields:
                kind = fields.get("event", "message")
                yield ServerEvent(fields.get("id", ""), kind, orjson.loads(fields["data"]))
            fields = {}


def raise_for_refusal(answer: httpx.Response) -> None:
    if answer.status_code < httpx.codes.BAD_REQUEST:
        return
    problem = _problem(answer)
    code = str(problem.get("code") or f"http_{answer.status_code}")
    sentence = str(problem.get("detail") or problem.get("title") or answer.reason_phrase)
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        raise Unauthenticated(sentence)
    raise ApiRefused(
        f"{sentence} ({answer.status_code} {code})",
        code=code,
        status=answer.status_code,
        wait=float(answer.headers.get("Retry-After") or 1),
    )


def _problem(answer: httpx.Response) -> dict[str, Any]:
    try:
        problem = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        return {}
    return problem if isinstance(problem, dict) else {}
