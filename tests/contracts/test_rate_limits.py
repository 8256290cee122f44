"""Rates, counted in Redis or here: the same answers."""

from datetime import timedelta

import pytest
from redis.asyncio import Redis

from core.errors import InvalidField, RateLimited
from core.settings import LimitSettings, RedisSettings, Settings
from models.limits import Bounds, Limits
from queues.limits.rates import RateLimits, demanded
from queues.limits.windows import Standing
from queues.redis import open_redis

BOUNDS = Bounds(tenant=Limits(tokens_per_minute=1000), key=Limits(requests_per_minute=3))
SETTINGS = LimitSettings(redis_timeout=timedelta(seconds=2))


@pytest.fixture
def rates(redis: Redis, settings: Settings) -> RateLimits:
    return RateLimits(redis, namespace=settings.broker.namespace, settings=SETTINGS)


async def take(rates: RateLimits, tokens: int, *, key: str = "k1", tenant: str = "t1") -> list[Standing]:
    return await rates.take(demanded(BOUNDS, tenant_id=tenant, key_id=key, tokens=tokens))


async def test_what_is_taken_is_missing_afterwards(rates: RateLimits) -> None:
    first = await take(rates, 100)
    second = await take(rates, 100)

    assert [(one.name, one.limit, one.remaining) for one in first] == [
        ("tenant-tokens", 1000, 900),
        ("key-requests", 3, 2),
    ]
    assert [one.remaining for one in second] == [800, 1]
    assert all(0 <= one.resets_in <= 120 for one in second)


async def test_a_refusal_takes_nothing_and_says_when_to_come_again(rates: RateLimits) -> None:
    await take(rates, 900)
    with pytest.raises(RateLimited, match="1000 tokens a minute for this tenant") as refused:
        await take(rates, 200)
    again = await take(rates, 100)

    assert refused.value.retry_after is not None
    assert 1 <= refused.value.retry_after <= 120
    assert [one.remaining for one in again] == [0, 1]


async def test_keys_and_tenants_are_counted_apart(rates: RateLimits) -> None:
    for _ in range(3):
        await take(rates, 100)
    with pytest.raises(RateLimited, match="requests"):
        await take(rates, 100)
    other_key = await take(rates, 100, key="k2")
    other_tenant = await take(rates, 100, key="k3", tenant="t2")

    assert [one.remaining for one in other_key] == [600, 2]
    assert [one.remaining for one in other_tenant] == [900, 2]


async def test_a_request_that_can_never_fit_names_its_field(rates: RateLimits) -> None:
    with pytest.raises(InvalidField, match="1001 tokens") as refused:
        await take(rates, 1001)

    assert refused.value.field == "max_tokens"


async def test_processes_share_what_they_count(redis: Redis, settings: Settings) -> None:
    if settings.redis.url.startswith("memory"):
        pytest.skip("the embedded profile is one process")
    one, other = (RateLimits(redis, namespace=settings.broker.namespace, settings=SETTINGS) for _ in range(2))
    await take(one, 300)

    assert (await take(other, 300))[0].remaining == 400


async def test_without_redis_a_process_counts_for_itself(free_port_url: str, settings: Settings) -> None:
    gone = open_redis(RedisSettings(url=free_port_url), settings.broker.namespace)
    rates = RateLimits(gone, namespace=settings.broker.namespace, settings=SETTINGS)
    await take(rates, 900)

    with pytest.raises(RateLimited):
        await take(rates, 200)
    await gone.aclose(close_connection_pool=True)


@pytest.fixture
def free_port_url() -> str:
    from tests.local_servers import free_port

    return f"redis://127.0.0.1:{free_port()}/0"
