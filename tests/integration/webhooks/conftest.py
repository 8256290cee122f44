"""A receiver on loopback, settings that let webhooks go there, and who delivers them."""

from collections.abc import AsyncIterator, Iterator

import pytest

from core.settings import Settings
from models.dialect import Database
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.webhooks import (
    Deliverer,
    on_loopback,
    open_deliverer,
)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


@pytest.fixture
def settings(settings: Settings, receiver: WebhookReceiver) -> Settings:
    return settings.model_copy(update={"webhooks": on_loopback(receiver.port)})


@pytest.fixture
async def deliverer(database: Database, settings: Settings) -> AsyncIterator[Deliverer]:
    async with open_deliverer(database, settings) as opened:
        yield opened
