"""The relay: what it releases, in which order, how much of it, and what it does when the broker refuses."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import pytest
from kombu.connection import Connection
from redis.asyncio import Redis

from core.errors import BrokerUnavailable
from core.settings import RelaySettings, Settings
from models.dialect import Database, open_database
from models.repositories import fleet
from models.repositories.submission import NewJob
from queues.messages import JobEnvelope
from queues.prefixes import trail_of
from queues.publisher import Publisher, open_publisher
from queues.relay import BELL, Relay
from queues.topology import Topology
from tests.contracts.brokers import MODELS, broker_settings
from tests.contracts.stores import (
    HOUR,
    OUTBOX,
    accept,
    ago,
    cancel,
    claim,
    move_time,
    new_job,
    now,
    queued,
    rows,
)
from tests.fakes.fake_publisher import FakePublisher

PATIENCE = timedelta(seconds=10)


@pytest.fixture
def settings(settings: Settings, profile: str) -> Iterator[Settings]:
    """With a broker of its own, and a relay that nothing but a bell wakes."""
    kind = "embedded" if profile == "embedded" else "rabbitmq"
    with broker_settings(kind) as broker:
        yield settings.model_copy(
            update={"broker": broker, "relay": RelaySettings(poll=HOUR, idle_depth=4, window=256)}
        )


@pytest.fixture
async def publisher(settings: Settings) -> AsyncIterator[Publisher]:
    opened = open_publisher(settings.broker, MODELS)
    yield opened
    await opened.close()


@pytest.fixture
def fake() -> FakePublisher:
    return FakePublisher(MODELS)


@pytest.fixture
def relay(database: Database, fake: FakePublisher, redis: Redis, settings: Settings) -> Relay:
    return Relay(database, fake, redis, settings)


async def sign_on(database: Database, slots: int) -> None:
    async with database.begin() as connection:
        await fleet.report(database, connection, name="w1", slots={"tiny": slots}, held={}, state="ready")


async def submit(database: Database, *group: NewJob) -> None:
    await accept(database, *group)
    await database.wakeups.ring(BELL)


async def claim_all(database: Database, fake: FakePublisher) -> None:
    await claim(database, *((one.id, one.generation) for one in fake.published))
    fake.lose_everything()


async def states(database: Database) -> Counter[str]:
    return Counter(row.state for row in await rows(database, OUTBOX))


@asynccontextmanager
async def running(database: Database, *started: Relay) -> AsyncIterator[None]:
    await database.wakeups.wait(BELL, timedelta(0))  # from here on no ring is missed
    tasks = [asyncio.create_task(one.run()) for one in started]
    yield
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def received(settings: Settings, service_class: str = "standard") -> list[str]:
    """Takes everything out of the broker's queue; the jobs in its order."""
    queue = Topology(settings.broker).queue_name("tiny", service_class)
    with Connection(settings.broker.url.get_secret_value()) as connection:
        channel = connection.channel()
        messages = list(iter(lambda: channel.basic_get(queue, no_ack=True), None))
    return [message.properties["correlation_id"] for message in messages]


async def test_a_submitted_job_reaches_the_broker(
    database: Database, publisher: Publisher, redis: Redis, settings: Settings
) -> None:
    job = await queued(database)

    released = await Relay(database, publisher, redis, settings).release()

    assert released == 1
    assert await states(database) == {"released": 1}
    assert received(settings) == [job.id]


async def test_no_more_is_released_than_fits_ahead_of_the_workers(
    database: Database, publisher: Publisher, redis: Redis, settings: Settings
) -> None:
    await sign_on(database, slots=6)
    jobs = [new_job(tenant_id=tenant) for tenant in "abcdefgh" for _ in range(20)]
    await accept(database, *jobs)
    relay = Relay(database, publisher, redis, settings)

    while await relay.release():
        pass

    ahead = Counter(row.tenant_id for row in await rows(database, OUTBOX) if row.state == "released")
    assert max(ahead.values()) <= 6
    assert sum(ahead.values()) == 18
    assert sorted(received(settings)) == sorted(
        row.job_id for row in await rows(database, OUTBOX) if row.state == "released"
    )


async def test_without_a_worker_a_few_jobs_are_released(database: Database, relay: Relay) -> None:
    await accept(database, *(new_job() for _ in range(20)))

    released = [await relay.release() for _ in range(2)]

    assert released == [4, 0]


async def test_a_claim_makes_room_for_the_next(database: Database, relay: Relay, fake: FakePublisher) -> None:
    await accept(database, *(new_job() for _ in range(6)))
    await relay.release()
    await claim_all(database, fake)

    assert await relay.release() == 2
    assert len(set(fake.ids)) == 6


async def test_jobs_are_released_in_the_one_order(
    database: Database, relay: Relay, fake: FakePublisher
) -> None:
    low = await queued(database, priority=1)
    plain = await queued(database)
    urgent = await queued(database, deadline=now() + timedelta(seconds=5))
    high = await queued(database, priority=9)

    await relay.release()

    assert fake.ids == [high.id, urgent.id, plain.id, low.id]


async def test_a_job_that_waited_beyond_the_bound_goes_first(
    database: Database, relay: Relay, fake: FakePublisher
) -> None:
    aged = await queued(database, priority=0, created_at=ago(hours=1))
    await accept(database, *(new_job(priority=9) for _ in range(10)))

    await relay.release()

    assert fake.ids[0] == aged.id


async def test_a_newcomer_is_released_beside_a_tenant_that_is_a_window_ahead(
    database: Database, relay: Relay, fake: FakePublisher
) -> None:
    await accept(database, *(new_job(tenant_id="giant", cost=1000) for _ in range(50)))
    while await relay.release():
        pass
    newcomer = await queued(database, tenant_id="newcomer")

    assert await relay.release() == 1
    assert fake.ids[-1] == newcomer.id
    assert Counter(one.tenant for one in fake.published) == {"giant": 4, "newcomer": 1}


async def test_a_released_job_says_what_its_worker_needs(
    database: Database, relay: Relay, fake: FakePublisher
) -> None:
    deadline = now() + HOUR
    job = await queued(database, priority=7, cost=33, prefix="p", prefix_tokens=5, deadline=deadline)

    await relay.release()

    [sent] = fake.published
    assert (sent.id, sent.generation, sent.tenant, sent.priority) == (job.id, 0, "acme", 7)
    assert (sent.cost, sent.prefix, sent.prefix_tokens, sent.backlog) == (33, "p", 5, 33)
    assert (sent.arrived, sent.deadline) == (job.created_at.timestamp(), deadline.timestamp())


async def test_two_relays_side_by_side_publish_each_job_once(
    database: Database, fake: FakePublisher, redis: Redis, settings: Settings
) -> None:
    jobs = [new_job(tenant_id=f"t{number % 20}") for number in range(200)]
    await accept(database, *jobs)
    await sign_on(database, slots=400)
    neighbour = open_database(settings.database)
    pair = [Relay(of, fake, redis, settings) for of in (database, neighbour)]

    while any(await asyncio.gather(*(one.release() for one in pair))):
        pass
    await neighbour.close()

    assert sorted(fake.ids) == sorted(job.id for job in jobs)
    assert await states(database) == {"released": 200}


async def test_a_broker_that_is_away_leaves_everything_waiting(
    database: Database, relay: Relay, fake: FakePublisher
) -> None:
    await accept(database, *(new_job() for _ in range(3)))
    fake.is_down = True

    with pytest.raises(BrokerUnavailable):
        await relay.release()
    meanwhile = await states(database)
    fake.is_down = False
    released = await relay.release()

    assert meanwhile == {"waiting": 3}
    assert released == 3


async def test_the_relay_tries_again_when_the_broker_is_back(
    database: Database, relay: Relay, fake: FakePublisher
) -> None:
    await queued(database)
    fake.is_down = True

    async with running(database, relay):
        await fake.until_called(1)
        fake.is_down = False
        await until_released(database, fake, 1)

    assert await states(database) == {"released": 1}


async def test_what_the_broker_does_not_confirm_waits(
    database: Database, relay: Relay, fake: FakePublisher
) -> None:
    fake.room = 2
    jobs = [new_job() for _ in range(4)]
    await accept(database, *jobs)
    lost = await queued(database, model="absent")

    while await relay.release():
        pass
    refused = await states(database)
    await claim_all(database, fake)
    while await relay.release():
        pass

    assert refused == {"released": 2, "waiting": 3}
    assert sorted(fake.ids) == sorted(job.id for job in jobs)
    assert [row.state for row in await rows(database, OUTBOX, lost.id)] == ["waiting"]


class Hesitant(FakePublisher):
    """Has the messages at once, and confirms when it is let."""

    def __init__(self) -> None:
        super().__init__(MODELS)
        self.asked = asyncio.Event()
        self.may_confirm = asyncio.Event()

    async def publish(self, envelopes: Sequence[JobEnvelope]) -> set[str]:
        self.asked.set()
        await self.may_confirm.wait()
        return await super().publish(envelopes)


@asynccontextmanager
async def publishing(
    database: Database, hesitant: Hesitant, redis: Redis, settings: Settings
) -> AsyncIterator["asyncio.Task[int]"]:
    """A round that waits for the broker's confirm."""
    task = asyncio.create_task(Relay(database, hesitant, redis, settings).release())
    await hesitant.asked.wait()
    yield task


async def test_a_job_can_be_claimed_before_the_broker_has_confirmed_its_window(
    database: Database, redis: Redis, settings: Settings
) -> None:
    job = await queued(database)
    hesitant = Hesitant()

    async with publishing(database, hesitant, redis, settings) as task:
        claims = await claim(database, (job.id, 0))
        hesitant.may_confirm.set()
        released = await task

    assert [one.view.id for one in claims] == [job.id]
    assert released == 1
    assert await states(database) == {}


async def test_a_claimed_job_does_not_wait_again_when_its_message_is_not_confirmed(
    database: Database, redis: Redis, settings: Settings
) -> None:
    claimed, other = await queued(database), await queued(database)
    hesitant = Hesitant()
    hesitant.room = 0

    async with publishing(database, hesitant, redis, settings) as task:
        await claim(database, (claimed.id, 0))
        hesitant.may_confirm.set()
        await task

    assert [(row.job_id, row.state) for row in await rows(database, OUTBOX)] == [(other.id, "waiting")]


async def test_a_relay_that_is_told_to_stop_hands_its_window_over_first(
    database: Database, redis: Redis, settings: Settings
) -> None:
    job = await queued(database)
    hesitant = Hesitant()

    async with publishing(database, hesitant, redis, settings) as task:
        task.cancel()
        hesitant.may_confirm.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert hesitant.ids == [job.id]
    assert await states(database) == {"released": 1}


async def test_what_goes_down_with_the_connection_waits_again(
    database: Database, relay: Relay, fake: FakePublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lost(_: Sequence[JobEnvelope]) -> set[str]:
        raise BrokerUnavailable("the connection was lost")

    await queued(database)
    monkeypatch.setattr(fake, "publish", lost)

    with pytest.raises(BrokerUnavailable):
        await relay.release()

    assert await states(database) == {"waiting": 1}


async def test_a_refused_job_is_published_under_the_same_name(
    database: Database, relay: Relay, fake: FakePublisher
) -> None:
    job = await queued(database)
    fake.room = 0
    await relay.release()
    fake.room = 1

    await relay.release()

    [sent] = fake.published
    assert (sent.id, sent.generation) == (job.id, 0)


async def test_a_submission_wakes_the_relay(
    database: Database, publisher: Publisher, redis: Redis, settings: Settings
) -> None:
    neighbour = open_database(settings.database)

    async with running(database, Relay(database, publisher, redis, settings)):
        await submit(neighbour, first := new_job())
        await until_stored(neighbour, {"released": 1})
        await submit(neighbour, second := new_job())
        await until_stored(neighbour, {"released": 2})
    await neighbour.close()

    assert received(settings) == [first.id, second.id]


async def test_a_scheduled_job_is_released_when_it_is_due(
    database: Database, relay: Relay, fake: FakePublisher, redis: Redis, settings: Settings
) -> None:
    due = await queued(database, not_before=now() + HOUR)
    await queued(database, not_before=now() + HOUR)
    early = await relay.release()
    await move_time(database, OUTBOX, due.id, available_at=ago(seconds=1))

    released = await Relay(database, fake, redis, settings).release()

    assert (early, released) == (0, 1)
    assert fake.ids == [due.id]
    assert await states(database) == {"released": 1, "scheduled": 1}


async def test_a_cancelled_job_is_not_released(database: Database, relay: Relay, fake: FakePublisher) -> None:
    job, other = await queued(database), await queued(database)
    await cancel(database, job.id)

    await relay.release()

    assert fake.ids == [other.id]


async def test_rates_are_told_to_the_others(
    database: Database, relay: Relay, redis: Redis, settings: Settings
) -> None:
    await queued(database)
    await relay.release()
    await queued(database)
    relay._gauge._measured_at -= 10  # ten seconds later

    await relay.release()

    assert b"tiny/standard" in (await redis.get(f"{settings.broker.namespace}:rates") or b"")


async def until_released(database: Database, fake: FakePublisher, jobs: int) -> None:
    await fake.until_called(fake.calls + 1)
    await until_stored(database, {"released": jobs})


async def until_stored(database: Database, wanted: dict[str, int]) -> None:
    """The relay commits after it published, and only the table tells when."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while await states(database) != wanted:
            pass


async def test_a_group_is_released_whole_although_its_jobs_came_far_apart(
    database: Database, relay: Relay, fake: FakePublisher
) -> None:
    await sign_on(database, slots=4)
    jobs = [new_job(prefix=f"p{n % 5}", prefix_tokens=100) for n in range(30)]
    await accept(database, *jobs)

    while len(fake.published) < 12:
        await relay.release()
        await claim_all(database, fake)

    # Six begin like the first job; in arrival order each would be followed by four strangers.
    assert [one.prefix for one in fake.published][:12] == ["p0"] * 6 + ["p1"] * 6


async def test_prompts_that_begin_alike_are_released_together_though_nobody_named_them(
    database: Database, relay: Relay, fake: FakePublisher
) -> None:
    await sign_on(database, slots=4)
    heads = [trail_of([str(n) * 600]) for n in range(5)]
    await accept(database, *(new_job(trail=heads[n % 5]) for n in range(30)))

    while len(fake.published) < 12:
        await relay.release()
        await claim_all(database, fake)

    assert [one.trail for one in fake.published][:12] == [heads[0]] * 6 + [heads[1]] * 6
