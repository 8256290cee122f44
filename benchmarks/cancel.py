"""A hundred running jobs are cancelled at once: milliseconds until their engine knows, on real processes.

The engine is a stand-in that streams a token each 20 ms to every request and takes SGLang's abort by name.
Each time begins when the request to cancel is sent: `named` is when /abort_request came, `left` when the
connection closed. Run: python -m benchmarks.cancel [--jobs 100] [--rounds 3] [--json FILE]
"""

import asyncio
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from benchmarks import measure
from benchmarks.arms import QUIET
from benchmarks.measure import Figure, quantile
from tests.platform import Platform, running_platform
from tests.services import open_services

_TOKEN: Final = b'data: {"choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
_PACE: Final = 0.02  # seconds
_ENTRY: Final = """
[[model]]
name = "default"
engine = "sglang"
url = "{url}"
slots = {slots}
context_length = 8192
"""


class Engine:
    """Never ends an answer; notes when each request began, was named and was left, by its job."""

    def __init__(self) -> None:
        self.began: set[str] = set()
        self.named: dict[str, float] = {}
        self.left: dict[str, float] = {}
        self.url = ""
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True).start()
        self._ready.wait()

    async def _serve(self) -> None:
        app = web.Application()
        app.router.add_get("/health", self._healthy)
        app.router.add_get("/health_generate", self._healthy)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/abort_request", self._abort)
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        await asyncio.Event().wait()

    async def _healthy(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _abort(self, request: web.Request) -> web.Response:
        job_id = (await request.json())["rid"].partition(".")[0]
        self.named[job_id] = time.monotonic()
        return web.Response()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        job_id = (await request.json())["rid"].partition(".")[0]
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(_TOKEN)
                self.began.add(job_id)
                await asyncio.sleep(_PACE)
        finally:
            self.left[job_id] = time.monotonic()


async def one_round(platform: Platform, key: str, engine: Engine, jobs: int) -> dict[str, float]:
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(platform.url, headers=headers) as client:
        body = {"jobs": [{"prompt": f"Say much, {n}.", "max_tokens": 4000} for n in range(jobs)]}
        async with client.post("/v1/jobs/bulk", json=body) as answer:
            ids = [one["job"]["id"] for one in (await answer.json())["data"]]
        await _until(lambda: engine.began.issuperset(ids))
        await asyncio.sleep(0.5)  # streams flow evenly, and submissions are settled
        asked: dict[str, float] = {}

        async def cancel(job_id: str) -> None:
            asked[job_id] = time.monotonic()
            async with client.post(f"/v1/jobs/{job_id}/cancel") as answer:
                await answer.read()

        await asyncio.gather(*map(cancel, ids))
        answered = time.monotonic() - min(asked.values())
        await _until(lambda: engine.left.keys() >= set(ids))
        await asyncio.sleep(0.5)
    left = [1000 * (engine.left[one] - asked[one]) for one in ids]
    named = [1000 * (engine.named[one] - asked[one]) for one in ids if one in engine.named]
    found = {"all_answered": 1000 * answered, "left_p50": quantile(left, 50), "left_p95": quantile(left, 95)}
    if named:
        found |= {"named_p50": quantile(named, 50), "named_p95": quantile(named, 95)}
    return found


async def _until(holds: Any, within: float = 60.0) -> None:
    end = time.monotonic() + within
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError
        await asyncio.sleep(0.005)


def main() -> int:
    parser = measure.parser(__doc__, rounds=3)
    parser.add_argument("--jobs", type=int, default=100)
    given = parser.parse_args()
    engine = Engine()
    with open_services() as services, tempfile.TemporaryDirectory() as folder:
        catalogue = Path(folder) / "models.toml"
        catalogue.write_text(_ENTRY.format(url=engine.url, slots=given.jobs))
        settings = QUIET | {"CATALOGUE": str(catalogue)}
        processes = ("api", "relay", "upkeep", "worker")
        with running_platform(services, Path(folder), processes=processes, **settings) as platform:
            key = platform.key("cancels")
            asyncio.run(one_round(platform, key, engine, given.jobs))  # warm
            found = [asyncio.run(one_round(platform, key, engine, given.jobs)) for _ in range(given.rounds)]
    rows = [
        Figure(f"{given.jobs} cancels: {name}", tuple(one[name] for one in found), "ms") for name in found[0]
    ]
    return measure.report("cancel", rows, to=given.json)


if __name__ == "__main__":
    sys.exit(main())
