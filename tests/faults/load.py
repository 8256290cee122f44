"""A tenant's client that never gives up: what got no answer is sent again under the same key."""

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

_CHUNK: Final = 250
_ACCEPTED: Final = frozenset({200, 202})
_TOO_LONG: Final = 120.0
_PAGE: Final = 100
_CANCELLED_AT_ONCE: Final = 1000
_MODELS: Final = "/v1/admin/models"


def _came_too_late(item: dict[str, Any]) -> bool:
    return item["error"] is not None and [e["field"] for e in item["error"]["errors"]] == ["deadline"]


@dataclass
class Client:
    """`accepted` maps each label to the ids that answers named: more than one is a doubled job."""

    http: httpx.AsyncClient
    scenario: str
    accepted: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    answers: Counter[int] = field(default_factory=Counter)
    breaks: int = 0
    slowest: tuple[float, str] = (0.0, "")
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    @property
    def labels(self) -> dict[str, str]:
        """The label of each accepted job."""
        return {job_id: label for label, ids in self.accepted.items() for job_id in ids}

    async def submit(
        self, count: int, words: str = "how are you", *, at: str = "", **changes: Any
    ) -> list[str]:
        """Jobs in bulk, each answered in the end; their ids. `at` is one API's address, past the balancer."""
        ids: list[str] = []
        while count > 0:
            size = min(count, _CHUNK)
            ids += await self._chunk([self._job(words, changes) for _ in range(size)], at=at)
            count -= size
        return ids

    async def stream(
        self, rate: float, stop: asyncio.Event, words: str = "how are you", **changes: Any
    ) -> None:
        """About `rate` jobs a second in bulks of a tenth of a second, until `stop`."""
        due = time.monotonic()
        while not stop.is_set():
            await self._chunk([self._job(words, changes) for _ in range(max(1, round(rate / 10)))])
            due = max(due + 0.1, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def submit_at(self, rng: random.Random, count: int, seconds: float, **changes: Any) -> list[str]:
        """Single submissions at random times within `seconds`."""

        async def one() -> str:
            await asyncio.sleep(rng.uniform(0, seconds))
            return (await self._chunk([self._job("alone", changes)]))[0]

        return list(await asyncio.gather(*(one() for _ in range(count))))

    async def cancel(self, job_id: str) -> str:
        """The status that the answer named."""
        answer = await self._until_answered("POST", f"/v1/jobs/{job_id}/cancel")
        status: str = answer.json()["status"]
        return status

    async def cancel_all(self, job_ids: Sequence[str]) -> None:
        """In bulk, the last submitted first."""
        newest = list(reversed(job_ids))
        for start in range(0, len(newest), _CANCELLED_AT_ONCE):
            body = {"ids": newest[start : start + _CANCELLED_AT_ONCE]}
            await self._until_answered("POST", "/v1/jobs/bulk/cancel", json=body)

    async def hold(self, how: str) -> None:
        """`pause`, `drain` or `resume` of the model."""
        await self._until_answered("POST", f"{_MODELS}/default/{how}")

    async def model_state(self) -> str:
        [model] = (await self._until_answered("GET", _MODELS)).json()["data"]
        return str(model["state"])

    async def everything(self) -> dict[str, dict[str, Any]]:
        """All jobs of the tenant as the API lists them."""
        found: dict[str, dict[str, Any]] = {}
        after: str | None = None
        while True:
            query = f"?limit={_PAGE}" + (f"&after={after}" if after else "")
            page = (await self._until_answered("GET", f"/v1/jobs{query}")).json()
            found |= {job["id"]: job for job in page["data"]}
            if not page["has_more"]:
                return found
            after = page["last_id"]

    def _job(self, words: str, changes: dict[str, Any]) -> dict[str, Any]:
        label = f"{self.scenario}-{next(self._numbers)}"
        content = f"{label} {words}"
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 6, "service_class": "bulk"}
        return body | changes

    async def _chunk(self, jobs: Sequence[dict[str, Any]], *, at: str = "") -> list[str]:
        """Every item accepted, or refused for good as its deadline passed on the way; the ids in order."""
        labels = [job["messages"][0]["content"].split(maxsplit=1)[0] for job in jobs]
        key = {"Idempotency-Key": f"key-{labels[0]}"}
        end = time.monotonic() + _TOO_LONG
        while True:
            path = f"{at}/v1/jobs/bulk"
            answer = await self._until_answered("POST", path, json={"jobs": jobs}, headers=key)
            items = answer.json()["data"]
            for label, item in zip(labels, items, strict=True):
                if item["status"] in _ACCEPTED:
                    self.accepted[label].add(item["job"]["id"])
                else:
                    self.answers[item["status"]] += 1
            if all(item["status"] in _ACCEPTED or _came_too_late(item) for item in items):
                return [item["job"]["id"] for item in items if item["job"]]
            if time.monotonic() > end:
                raise TimeoutError(f"not accepted within {_TOO_LONG:.0f} s: {items[0]['error']}")
            await asyncio.sleep(0.2)

    async def _until_answered(self, method: str, path: str, **request: Any) -> httpx.Response:
        end = time.monotonic() + _TOO_LONG
        while True:
            began = time.monotonic()
            try:
                answer = await self.http.request(method, path, **request)
            except httpx.TransportError as error:
                self.breaks += 1
                self.slowest = max(self.slowest, (time.monotonic() - began, repr(error)))
            else:
                self.answers[answer.status_code] += 1
                self.slowest = max(self.slowest, (time.monotonic() - began, f"{method} {answer.status_code}"))
                if answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR:
                    return answer.raise_for_status()
            if time.monotonic() > end:
                raise TimeoutError(f"{method} {path}: no answer within {_TOO_LONG:.0f} s")
            await asyncio.sleep(0.2)

    @property
    def server_errors(self) -> int:
        return sum(
            number for status, number in self.answers.items() if status >= httpx.codes.INTERNAL_SERVER_ERROR
        )
