"""Links that are cut, black-holed, slow or half-open: every client gives up in its time and comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from pydantic import SecretStr
from redis.exceptions import RedisError
from sqlalchemy import text

from core.errors import BrokerUnavailable, StoreUnavailable
from core.settings import BrokerSettings, DatabaseSettings, RedisSettings
from models.dialect import Database, Leadership, open_database
from queues.event_reader import EventReader
from queues.messages import JobEnvelope
from queues.publisher import AmqpPublisher
from queues.redis import REDIS_DOWN, open_redis
from tests.faults.proxy import Fault, Link
from tests.services import Services

pytestmark = pytest.mark.services

SOON = timedelta(milliseconds=300)
# Far more than a client may take, and far less than what hung before.
HANGS = 15.0
FAULTS = [Fault.CUT, Fault.BLACK_HOLE, Fault.HALF_OPEN]


@asynccontextmanager
async def link_to(url: str) -> AsyncIterator[tuple[Link, str]]:
    """A link to the server of `url`, and the address to use in its place."""
    parts = urlsplit(url)
    link = Link(parts.scheme, [parts.port or 0])
    await link.open()
    credentials = f"{parts.username}:{parts.password}@" if parts.username else ""
    try:
        yield link, urlunsplit(parts._replace(netloc=f"{credentials}127.0.0.1:{link.port}"))
    finally:
        await link.close()


async def gives_up(work: Coroutine[Any, Any, Any], errors: Any) -> None:
    async with asyncio.timeout(HANGS):
        with pytest.raises(errors):
            await work


async def comes_back(work: Callable[[], Coroutine[Any, Any, Any]], errors: Any) -> None:
    """At the latest after a few attempts: a back-off may be under way."""
    async with asyncio.timeout(HANGS):
        while True:
            try:
                await work()
            except errors:
                continue
            return


@dataclass
class Store:
    link: Link
    database: Database

    async def ask(self) -> None:
        async with self.database.begin() as connection:
            await connection.execute(text("SELECT 1"))


@pytest.fixture
async def store(services: Services) -> AsyncIterator[Store]:
    async with link_to(services.database_url) as (link, url):
        settings = DatabaseSettings(url=url, connect_timeout=SOON, command_timeout=SOON, pool_size=2)
        database = open_database(settings, namespace="links")
        yield Store(link, database)
        link.heal()
        await database.close()


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_statement_on_a_dead_link_ends_and_the_next_one_works(store: Store, fault: Fault) -> None:
    await store.ask()
    store.link.fail(fault)
    await gives_up(store.ask(), StoreUnavailable)
    store.link.heal()

    await comes_back(store.ask, StoreUnavailable)


async def test_a_commit_on_a_dead_link_ends(store: Store) -> None:
    async def commit() -> None:
        async with store.database.begin() as connection:
            await connection.execute(text("SELECT 1"))
            store.link.fail(Fault.BLACK_HOLE)

    await gives_up(commit(), StoreUnavailable)
    store.link.heal()

    await comes_back(store.ask, StoreUnavailable)


async def test_a_cancelled_statement_on_a_dead_link_ends(store: Store) -> None:
    await store.ask()
    store.link.fail(Fault.BLACK_HOLE)
    asking = asyncio.create_task(store.ask())
    await asyncio.sleep(0)
    asking.cancel()

    async with asyncio.timeout(HANGS):
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_slow_link_is_no_dead_one(services: Services) -> None:
    async with link_to(services.database_url) as (link, url):
        database = open_database(DatabaseSettings(url=url))
        link.fail(Fault.SLOW)

        await Store(link, database).ask()

        await database.close()


@pytest.mark.parametrize("fault", FAULTS)
async def test_bells_ring_again_after_a_dead_link(store: Store, services: Services, fault: Fault) -> None:
    elsewhere = open_database(DatabaseSettings(url=services.database_url), namespace="links")
    await store.database.wakeups.wait("bell", timedelta(0))
    store.link.fail(fault)
    async with asyncio.timeout(HANGS):
        await store.database.wakeups.ring("bell")
        await store.database.wakeups.wait("bell", timedelta(0))
    store.link.heal()
    async with asyncio.timeout(HANGS):
        while not await store.database.wakeups.wait("bell", timedelta(milliseconds=50)):
            await elsewhere.wakeups.ring("bell")

    await elsewhere.close()


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_leader_on_a_dead_link_stops_leading_and_may_lead_again(store: Store, fault: Fault) -> None:
    leadership = Leadership(store.database, f"links-{fault}")
    assert await leadership.acquire()
    store.link.fail(fault)
    await gives_up(leadership.acquire(), StoreUnavailable)
    store.link.heal()

    async def lead() -> None:
        # The server learns of a half-open link when it writes; until then the old session leads.
        async with store.database.begin() as connection:
            await connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'links' AND pid <> pg_backend_pid()"
                )
            )
        if not await leadership.acquire():
            raise StoreUnavailable("not yet")

    await comes_back(lead, StoreUnavailable)
    await leadership.release()


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_redis_command_on_a_dead_link_ends_and_the_next_one_works(
    services: Services, fault: Fault
) -> None:
    async with link_to(services.redis_url) as (link, url):
        redis = open_redis(
            RedisSettings(url=url, connect_timeout=SOON, command_timeout=SOON), services.namespace
        )
        await redis.ping()
        link.fail(fault)
        if fault is not Fault.HALF_OPEN:  # the second attempt is on a new connection, and works
            await gives_up(redis.ping(), REDIS_DOWN)
        link.heal()

        await comes_back(redis.ping, RedisError)

        await redis.aclose()


async def test_events_are_read_again_after_a_dead_link(services: Services) -> None:
    async with link_to(services.redis_url) as (link, url):
        redis = open_redis(
            RedisSettings(url=url, connect_timeout=SOON, command_timeout=SOON), services.namespace
        )
        reader = EventReader(redis, namespace=services.namespace)
        await reader.start()
        assert reader.is_up
        link.fail(Fault.CUT)
        async with asyncio.timeout(HANGS):
            while reader.is_up:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        link.heal()
        async with asyncio.timeout(HANGS):
            while not reader.is_up:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        await reader.close()
        await redis.aclose()


@pytest.mark.parametrize("fault", FAULTS)
async def test_publishing_on_a_dead_link_ends_and_goes_on(services: Services, fault: Fault) -> None:
    async with link_to(services.broker_url) as (link, url):
        settings = BrokerSettings(
            url=SecretStr(url),
            namespace=f"{services.namespace}-links",
            connect_timeout=SOON,
            confirm_timeout=SOON,
        )
        publisher = AmqpPublisher(settings, ["tiny"])
        envelope = JobEnvelope("job_1", 0, "tiny", "bulk", "acme", 5, 10, 1.0)
        assert await publisher.publish([envelope]) == {"job_1"}
        link.fail(fault)
        await gives_up(publisher.publish([envelope]), BrokerUnavailable)
        await gives_up(publisher.depths(["tiny"]), BrokerUnavailable)
        await gives_up(publisher.dead(1), BrokerUnavailable)
        link.heal()

        await comes_back(lambda: publisher.publish([envelope]), BrokerUnavailable)

        await publisher.close()
