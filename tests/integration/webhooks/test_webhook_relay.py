"""The relay's part of webhooks: what is due is handed to the broker, whatever the broker's library says."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import httpx

from core.settings import Settings
from models.dialect import Database
from queues.messages import DeliveryEnvelope, Envelope, task_id
from queues.webhook_relay import WebhookRelay
from tests.fakes.fake_publisher import FakePublisher
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.platform_fixtures import SimulatedWorker
from tests.webhooks import log, make_endpoint, submit


class Breaking(FakePublisher):
    """Fails once as a channel does whose connection is just going down."""

    def __init__(self) -> None:
        super().__init__(["tiny"])
        self.taken: asyncio.Queue[Envelope] = asyncio.Queue()
        self.breaks = 1

    async def publish(self, envelopes: Sequence[Envelope]) -> set[str]:
        if self.breaks:
            self.breaks -= 1
            raise AttributeError("'NoneType' object has no attribute 'sendall'")
        for envelope in envelopes:
            self.taken.put_nowait(envelope)
        return {task_id(envelope) for envelope in envelopes}


async def test_a_failure_that_nobody_foresaw_does_not_end_the_relay(
    api_client: httpx.AsyncClient,
    worker: SimulatedWorker,
    database: Database,
    settings: Settings,
    receiver: WebhookReceiver,
) -> None:
    await make_endpoint(api_client, receiver.url)
    await worker.run(await submit(api_client))
    publisher = Breaking()
    relay = asyncio.create_task(WebhookRelay(database, publisher, settings).run())

    async with asyncio.timeout(30):
        envelope = await publisher.taken.get()
    relay.cancel()
    with suppress(asyncio.CancelledError):
        await relay

    [delivery] = await log(api_client)
    assert isinstance(envelope, DeliveryEnvelope)
    assert (envelope.id, publisher.breaks) == (delivery["id"], 0)
