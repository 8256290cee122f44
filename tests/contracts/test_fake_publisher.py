"""The fake publisher keeps the promises that the embedded and the real one keep in test_publishers.py."""

from collections.abc import AsyncIterator

import pytest

from core.errors import BrokerUnavailable
from queues.messages import JobEnvelope
from queues.publisher import Publisher, open_publisher
from tests.contracts.brokers import MODELS, broker_settings
from tests.fakes.fake_publisher import FakePublisher


@pytest.fixture(params=["fake", "embedded"])
async def publisher(request: pytest.FixtureRequest) -> AsyncIterator[Publisher]:
    with broker_settings("embedded", max_length=20) as settings:
        fake = request.param == "fake"
        opened = FakePublisher(MODELS, room=20) if fake else open_publisher(settings, MODELS)
        yield opened
        await opened.close()


def envelopes(count: int, *, model: str = "tiny", generation: int = 0) -> list[JobEnvelope]:
    return [JobEnvelope(f"job_{n}", generation, model, "standard", "acme", 5, 10, 1.0) for n in range(count)]


async def test_what_is_published_is_confirmed_and_counted(publisher: Publisher) -> None:
    confirmed = await publisher.publish(envelopes(3, generation=2))

    assert confirmed == {"job_0.2", "job_1.2", "job_2.2"}
    assert await publisher.depths(["tiny"]) == {
        ("tiny", "premium"): 0,
        ("tiny", "standard"): 3,
        ("tiny", "bulk"): 0,
    }


async def test_nothing_is_confirmed_of_nothing(publisher: Publisher) -> None:
    assert await publisher.publish([]) == set()


async def test_a_full_queue_takes_no_more(publisher: Publisher) -> None:
    assert len(await publisher.publish(envelopes(30))) == 20
    assert await publisher.publish(envelopes(1)) == set()


async def test_a_model_without_a_queue_is_not_confirmed(publisher: Publisher) -> None:
    assert await publisher.publish([*envelopes(1, model="absent"), *envelopes(1)]) == {"job_0"}


async def test_a_fake_broker_that_is_down_says_so() -> None:
    publisher = FakePublisher(MODELS)
    publisher.is_down = True

    with pytest.raises(BrokerUnavailable):
        await publisher.reach()
    with pytest.raises(BrokerUnavailable):
        await publisher.publish(envelopes(1))
    with pytest.raises(BrokerUnavailable):
        await publisher.depths(MODELS)
