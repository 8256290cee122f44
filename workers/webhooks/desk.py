"""Due deliveries behind the pool's `Receiver`: as many calls at once as there are slots."""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from core import metrics
from core.clock import SystemClock
from core.errors import StoreUnavailable
from core.logs import get_logger
from core.settings import Settings
from models.dialect import open_database
from models.webhook_secrets import Vault
from queues.messages import DeliveryEnvelope
from queues.targets import Targets
from workers.deliveries import Delivery, Receiver
from workers.webhooks.client import WebhookClient
from workers.webhooks.service import DeliveryService

logger = get_logger(__name__)


class DeliveryDesk:
    """A thin shell: the service does the work, this keeps Celery's side of it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.webhooks.slots)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._begun: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._draining = False

    async def start(self) -> None:
        settings = self._settings
        self._database = open_database(settings.database, namespace=settings.broker.namespace)
        targets = Targets(settings.webhooks)
        self._client = WebhookClient(settings.webhooks, targets)
        self._service = DeliveryService(
            self._database,
            self._client,
            targets=targets,
            vault=Vault(settings.api.pepper),
            clock=SystemClock(),
            settings=settings.webhooks,
        )
        logger.info("deliverer_ready", slots=settings.webhooks.slots)

    def take(self, deliveries: Sequence[Delivery[DeliveryEnvelope]]) -> None:
        for delivery in deliveries:
            if self._draining:
                delivery.requeue()
            else:
                self._tasks[delivery.task_id] = asyncio.create_task(self._run(delivery))

    def cancel(self, task_id: str) -> None:
        """An operator's revoke ends this call; the delivery is due again when its lease is over."""
        if task := self._tasks.get(task_id):
            task.cancel()

    def forget(self, task_ids: Collection[str]) -> Collection[str]:
        dropped = [one for one in task_ids if one in self._tasks and one not in self._begun]
        for task_id in dropped:
            self._tasks.pop(task_id).cancel()
        return dropped

    async def drain(self, grace: timedelta) -> None:
        self._draining = True
        for task_id, task in list(self._tasks.items()):
            if task_id not in self._begun:
                task.cancel()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=grace.total_seconds())
            for task in late:
                task.cancel()

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._client.close()
        await self._database.close()

    def info(self) -> dict[str, Any]:
        return {"webhooks": {"running": len(self._begun), "counts": dict(self._counts)}}

    async def _run(self, delivery: Delivery[DeliveryEnvelope]) -> None:
        mine = asyncio.current_task()
        try:
            async with self._slots:
                self._begun.add(delivery.task_id)
                delivery.started()
                began = time.perf_counter()
                word = await self._service.deliver(delivery.envelope.id, delivery.envelope.claim)
                self._counts[word] += 1
                metrics.DELIVERIES.labels(word).inc()
                metrics.DELIVERY_SECONDS.labels(word).observe(time.perf_counter() - began)
                delivery.succeeded(word)
        except asyncio.CancelledError:
            if self._tasks.get(delivery.task_id) is mine:
                # Its claim is outdated when it had begun; then the lease brings it back.
                delivery.requeue()
            raise
        except StoreUnavailable as error:
            logger.warning("delivery_not_recorded", delivery=delivery.envelope.id, reason=str(error))
            delivery.failed(error)
        except Exception as error:  # the edge of a task
            logger.exception("delivery_broke", delivery=delivery.envelope.id)
            delivery.failed(error)
        finally:
            self._begun.discard(delivery.task_id)
            if self._tasks.get(delivery.task_id) is mine:
                del self._tasks[delivery.task_id]


class Both:
    """Jobs to one receiver, webhook deliveries to another."""

    def __init__(self, jobs: Receiver, webhooks: Receiver) -> None:
        self._jobs = jobs
        self._webhooks = webhooks

    async def start(self) -> None:
        await asyncio.gather(self._jobs.start(), self._webhooks.start())

    def take(self, deliveries: Sequence[Delivery[Any]]) -> None:
        webhooks = [one for one in deliveries if isinstance(one.envelope, DeliveryEnvelope)]
        jobs = [one for one in deliveries if not isinstance(one.envelope, DeliveryEnvelope)]
        if webhooks:
            self._webhooks.take(webhooks)
        if jobs:
            self._jobs.take(jobs)

    def cancel(self, task_id: str) -> None:
        self._jobs.cancel(task_id)
        self._webhooks.cancel(task_id)

    def forget(self, task_ids: Collection[str]) -> Collection[str]:
        return [*self._jobs.forget(task_ids), *self._webhooks.forget(task_ids)]

    async def drain(self, grace: timedelta) -> None:
        await asyncio.gather(self._jobs.drain(grace), self._webhooks.drain(grace))

    async def close(self) -> None:
        await self._jobs.close()
        await self._webhooks.close()

    def info(self) -> dict[str, Any]:
        return {**self._jobs.info(), **self._webhooks.info()}


def delivery_desk(settings: Settings) -> DeliveryDesk:
    """Called on the pool's loop."""
    return DeliveryDesk(settings)
