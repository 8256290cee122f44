"""Work on one batch: proven by its fence in every change, renewed while it lasts."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncConnection

from core.errors import StoreUnavailable
from models.dialect import Database
from models.repositories import batches
from models.repositories.batches import BatchRow

_BEAT: Final = 1.0  # seconds: a cancelled batch is noticed after so long


class BatchTaken(Exception):
    """Somebody else works on the batch by now, or it is cancelled."""


class Hold:
    """`status` is the batch's, as this holder left it."""

    def __init__(self, database: Database, batch: BatchRow, *, fence: int, lease: timedelta) -> None:
        self.batch = batch
        self.status = batch.status
        self._database = database
        self._fence = fence
        self._lease = lease

    async def move(self, connection: AsyncConnection, **values: Any) -> None:
        """A change in the caller's transaction. Raises `BatchTaken`, which rolls that back."""
        moved = await batches.move(
            connection, self.batch.id, fence=self._fence, status=self.status, values=values
        )
        if not moved:
            raise BatchTaken(self.batch.id)
        self.status = values.get("status", self.status)

    async def during(self, work: Coroutine[Any, Any, None]) -> None:
        """Does the work and renews the lease; ends the work where that is refused.

        Where the work fails the lease stays, so that the next attempt comes when it has run out.
        """
        task, beat = asyncio.ensure_future(work), asyncio.ensure_future(self._renew())
        try:
            await asyncio.wait({task, beat}, return_when=asyncio.FIRST_COMPLETED)
            self._result_of(task)
        except (BatchTaken, asyncio.CancelledError):
            await self._end(task, beat)
            await self._let_go()
            raise
        except BaseException:
            await self._end(task, beat)
            raise
        await self._end(task, beat)
        await self._let_go()

    def _result_of(self, task: asyncio.Future[None]) -> None:
        if not task.done():
            raise BatchTaken(self.batch.id)
        task.result()

    @staticmethod
    async def _end(*tasks: asyncio.Future[None]) -> None:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _let_go(self) -> None:
        async with self._database.begin() as connection:
            await batches.let_go(connection, self.batch.id, fence=self._fence)

    async def _renew(self) -> None:
        renewed = True
        while renewed:
            await asyncio.sleep(_BEAT)
            try:
                async with self._database.begin() as connection:
                    renewed = await batches.renew(
                        connection,
                        self.batch.id,
                        fence=self._fence,
                        status=self.status,
                        lease=self._lease,
                    )
            except StoreUnavailable:
                continue  # the lease lasts some beats
