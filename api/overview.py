"""What operators watch: one look at everything, as the document that console and terminal show."""

import time
from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection

from api.attention import concerns
from api.schemas.overview_read import Seen, render_overview
from models.dialect import Database
from models.repositories import activity, dead_letters, degradation, holds, overview
from models.repositories.activity import Which
from queues.hot_jobs import HotJobs
from queues.observer import Observer
from queues.overview_feed import OverviewFeed

_ROWS = 15
_TENANTS = 5
_CHANGES = 20


class Overviews:
    """`look` answers once; `feed` is for those who stay."""

    def __init__(self, database: Database, observer: Observer, hot: HotJobs, models: Sequence[str]) -> None:
        self._database = database
        self._observer = observer
        self._hot = hot
        self.models = models
        self.feed = OverviewFeed(self._encoded)

    async def look(self) -> dict[str, Any]:
        """Raises `StoreUnavailable`."""
        began = time.perf_counter()
        now = await self._observer.look()
        rates = await self._hot.rates()
        async with self._database.read() as connection:
            seen = await self._read(connection)
        document = render_overview(now, seen, rates, self.models)
        document["attention"] = concerns(document)
        document["look_ms"] = round((time.perf_counter() - began) * 1000, 1)
        return document

    async def _read(self, connection: AsyncConnection) -> Seen:
        letters, _ = await dead_letters.page(connection, settled=False, after=None, limit=_ROWS)
        return Seen(
            jobs={which: await activity.jobs(connection, which, limit=_ROWS) for which in Which},
            tenants=(await overview.loads(connection))[:_TENANTS],
            changes=await degradation.history(connection, limit=_CHANGES),
            letters=letters,
            batches=await activity.batches(connection, limit=_ROWS),
            holds=await holds.kinds(connection),
        )

    async def _encoded(self) -> bytes:
        return orjson.dumps(await self.look())
