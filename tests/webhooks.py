"""Webhooks without Celery: what the relay and a deliver process do, step by step, for tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx

from core.clock import Clock, SystemClock
from core.settings import Settings, WebhookSettings
from models.dialect import Database
from models.repositories import webhook_deliveries
from models.repositories.webhook_deliveries import Limits
from models.webhook_secrets import Vault
from models.webhook_tables import WebhookDelivery, WebhookEvent
from queues.targets import Lookup, Targets
from tests.contracts.stores import table
from workers.webhooks.client import WebhookClient
from workers.webhooks.service import DeliveryService

SOON = (timedelta(0),) * 9
ASK = {"prompt": "Hello?", "metadata": {"customer": "größe"}}
DELIVERIES, EVENTS = table(WebhookDelivery), table(WebhookEvent)


def on_loopback(port: int, **changes: Any) -> WebhookSettings:
    """Settings that let webhooks reach a receiver on this machine, with a schedule that does not wait."""
    fields: dict[str, Any] = {
        "allow_http": True,
        "ports": (443, port),
        "allowed_networks": ("127.0.0.0/8",),
        "schedule": SOON,
    }
    return WebhookSettings(**fields | changes)


class Deliverer:
    """Releases what is due and delivers it, in this task."""

    def __init__(self, database: Database, service: DeliveryService, settings: WebhookSettings) -> None:
        self._database = database
        self.service = service
        self.limits = Limits.of(settings)

    async def release(self) -> list[tuple[str, int]]:
        async with self._database.begin() as connection:
            return await webhook_deliveries.release(connection, self.limits, lanes=64)

    async def run_due(self) -> list[str]:
        """One round: what each delivery came to."""
        return [await self.service.deliver(*claim) for claim in await self.release()]

    async def run_all(self, most: int = 50) -> list[str]:
        """Rounds until nothing is due."""
        words: list[str] = []
        for _ in range(most):
            round_ = await self.run_due()
            if not round_:
                break
            words += round_
        return words


@asynccontextmanager
async def open_deliverer(
    database: Database, settings: Settings, *, clock: Clock | None = None, lookup: Lookup | None = None
) -> AsyncIterator[Deliverer]:
    targets = Targets(settings.webhooks, lookup)
    client = WebhookClient(settings.webhooks, targets)
    service = DeliveryService(
        database,
        client,
        targets=targets,
        vault=Vault(settings.api.pepper),
        clock=clock or SystemClock(),
        settings=settings.webhooks,
    )
    try:
        yield Deliverer(database, service, settings.webhooks)
    finally:
        await client.close()


async def make_endpoint(client: httpx.AsyncClient, url: str, **changes: Any) -> dict[str, Any]:
    answer = await client.post("/v1/webhook_endpoints", json={"url": url, **changes})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def submit(client: httpx.AsyncClient, **changes: Any) -> str:
    answer = await client.post("/v1/jobs", json=ASK | changes)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


async def log(client: httpx.AsyncClient, **query: str) -> list[dict[str, Any]]:
    answer = await client.get("/v1/webhook_deliveries", params=query)
    data: list[dict[str, Any]] = answer.json()["data"]
    return data
