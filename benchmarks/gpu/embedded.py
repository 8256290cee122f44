"""The embedded profile around an SGLang server: one process, SQLite, its own broker and Redis."""

import asyncio
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import orjson

from benchmarks.arms import QUIET
from benchmarks.gpu.bare import Result, total
from benchmarks.gpu.prompts import Request
from benchmarks.gpu.whole import catalogue, submit
from tests.embedded import Up, up

_WITHIN: Final = 400.0  # seconds
_ENDED: Final = """
SELECT r.usage FROM results r JOIN jobs j ON j.id = r.job_id
WHERE j.status = 'completed' AND j.id IN (SELECT value FROM json_each(?))
"""


def embedded(
    folder: Path, url: str, batches: Sequence[Sequence[Request]], *, model: Path, slots: int
) -> Result:
    """One platform runs the batches one after another; the result of the last."""
    folder.mkdir(parents=True, exist_ok=True)
    entry = catalogue(folder, url, model=model, slots=slots)
    settings = {f"PENSTOCK_{name}": value for name, value in QUIET.items()}
    with up(folder, PENSTOCK_CATALOGUE=str(entry), **settings) as platform:
        results = [_run(platform, requests) for requests in batches]
        platform.stop(signal.SIGTERM)
    return results[-1]


def _run(platform: Up, requests: Sequence[Request]) -> Result:
    began = time.perf_counter()
    ids = asyncio.run(submit(platform.url, platform.key, requests))
    wanted = orjson.dumps(ids).decode()
    with closing(sqlite3.connect(f"file:{platform.folder / 'penstock.db'}?mode=ro", uri=True)) as database:
        while len(rows := database.execute(_ENDED, (wanted,)).fetchall()) < len(ids):
            if time.perf_counter() > began + _WITHIN:
                raise TimeoutError(f"{len(rows)} of {len(ids)} jobs are completed")
            time.sleep(0.05)
    return total([orjson.loads(usage) for (usage,) in rows], time.perf_counter() - began)
