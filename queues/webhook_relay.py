"""Releases webhook deliveries that are due: takes them under a lease, and hands them to the broker."""

import asyncio
import time
from datetime import timedelta
from typing import Final

from core import metrics
from core.errors import BrokerUnavailable, StoreUnavailable
from core.logs import get_logger
from core.settings import Settings
from models.dialect import Database
from models.repositories import webhook_deliveries
from models.repositories.webhook_deliveries import Limits
from models.repositories.webhook_events import BELL
from queues.messages import DeliveryEnvelope, task_id
from queues.publisher import Publisher

logger = get_logger(__name__)

_LANES_PER_ROUND: Final = 64
_RETRY: Final = 1.0  # seconds
_ABANDON_EVERY: Final = timedelta(minutes=1).total_seconds()


class WebhookRelay:
    """One of possibly several: rows are locked while they are taken.

    The commit comes before the publish. What is lost between the two, in the broker or in a sender that
    dies, is due again when its lease ends; an old message finds its claim outdated.
    """

    def __init__(self, database: Database, publisher: Publisher, settings: Settings) -> None:
        self._database = database
        self._publisher = publisher
        self._settings = settings.webhooks
        self._limits = Limits.of(settings.webhooks)
        self._abandon_at = 0.0

    async def run(self) -> None:
        """Until cancelled. What the broker or the database refuses is tried again."""
        while True:
            try:
                while await self.release():
                    pass
                await self._abandon()
            except (BrokerUnavailable, StoreUnavailable) as error:
                logger.warning("webhooks_delayed", reason=str(error))
                await asyncio.sleep(_RETRY)
            except Exception:
                # It shares its process with the release of jobs, which would end with it.
                logger.exception("webhooks_failed")
                await asyncio.sleep(_RETRY)
            else:
                await self._database.wakeups.wait(BELL, self._settings.poll)

    async def release(self) -> int:
        """Hands on what is due now; the number of deliveries that the broker confirmed."""
        async with self._database.begin() as connection:
            taken = await webhook_deliveries.release(connection, self._limits, lanes=_LANES_PER_ROUND)
        if not taken:
            return 0
        envelopes = {task_id(e): e for e in (DeliveryEnvelope(*one) for one in taken)}
        confirmed: set[str] = set()
        try:
            began = time.perf_counter()
            confirmed = await self._publisher.publish(list(envelopes.values()))
            metrics.PUBLISH_SECONDS.labels("webhooks").observe(time.perf_counter() - began)
        finally:
            lost = [(e.id, e.claim) for name, e in envelopes.items() if name not in confirmed]
            if lost:
                metrics.UNCONFIRMED.labels("webhooks").inc(len(lost))
                async with self._database.begin() as connection:
                    await webhook_deliveries.put_back(connection, lost)
        return len(confirmed)

    async def _abandon(self) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._abandon_at:
            return
        self._abandon_at = now + _ABANDON_EVERY
        async with self._database.begin() as connection:
            over = await webhook_deliveries.abandon(connection, after=self._settings.give_up)
        if over:
            logger.warning("webhooks_given_up", deliveries=over)
