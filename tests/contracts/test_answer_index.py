"""Kept answers, on Redis and on the in-process one."""

from datetime import timedelta

import pytest
from redis.asyncio import Redis

from core.errors import EventsUnavailable
from core.settings import AnswerSettings, RedisSettings, Settings
from queues.redis import open_redis
from queues.similar.index import AnswerIndex, Entry, KeptAnswer
from tests.local_servers import free_port

PATIENT = AnswerSettings(redis_timeout=timedelta(seconds=2), most=3)


def entry(job: str, *digests: str, tenant: str = "t1", lifetime: float = 60) -> Entry:
    output = {"text": f"answer of {job}", "reasoning": None, "finish_reason": "stop"}
    return Entry(KeptAnswer(job, tenant, output, 4), digests, lifetime)


@pytest.fixture
def index(redis: Redis, settings: Settings) -> AnswerIndex:
    return AnswerIndex(redis, namespace=settings.broker.namespace, settings=PATIENT)


async def test_an_answer_is_found_under_each_of_its_digests(index: AnswerIndex) -> None:
    kept = entry("job_1", "exact", "scope:words")
    await index.put([kept])

    assert await index.find("t1", "exact") == kept.answer
    assert await index.find("t1", "scope:words") == kept.answer
    assert await index.find("t1", "other") is None


async def test_another_tenants_answer_is_never_found(
    index: AnswerIndex, redis: Redis, settings: Settings
) -> None:
    await index.put([entry("job_1", "same", tenant="t2")])
    assert await index.find("t1", "same") is None

    # Even where somebody put it under the wrong key.
    namespace = settings.broker.namespace
    document = await redis.get(f"{namespace}:answers:t2:same")
    await redis.set(f"{namespace}:answers:t1:same", document)
    assert await index.find("t1", "same") is None


async def test_a_forgotten_job_answers_nothing_even_if_it_is_kept_later(index: AnswerIndex) -> None:
    await index.put([entry("job_1", "a", "b"), entry("job_2", "c")])

    assert await index.forget("job_1") == 2
    await index.put([entry("job_1", "a")])
    found = [await index.find("t1", digest) for digest in "abc"]

    assert [one.job_id if one else None for one in found] == [None, None, "job_2"]
    assert await index.forget("nobody") == 0


async def test_the_oldest_leave_when_there_are_too_many(index: AnswerIndex) -> None:
    for number in range(5):
        await index.put([entry(f"job_{number}", f"d{number}", lifetime=60 + number)])
    await index.put([entry("job_9", "d0", tenant="t2")])

    found = [await index.find("t1", f"d{number}") is not None for number in range(5)]

    assert found == [False, False, True, True, True]
    assert await index.find("t2", "d0") is not None


async def test_an_answer_expires_with_its_job(index: AnswerIndex, redis: Redis, settings: Settings) -> None:
    await index.put([entry("job_1", "a", lifetime=30), entry("job_2", "b", lifetime=-1)])

    assert 0 < await redis.pttl(f"{settings.broker.namespace}:answers:t1:a") <= 30_000
    assert await index.find("t1", "b") is None


async def test_without_redis_nothing_is_found_and_erasing_says_so(settings: Settings) -> None:
    gone = open_redis(RedisSettings(url=f"redis://127.0.0.1:{free_port()}/0"), "x")
    index = AnswerIndex(gone, namespace="x", settings=PATIENT)

    assert await index.find("t1", "a") is None
    with pytest.raises(EventsUnavailable):
        await index.forget("job_1")
    await gone.aclose(close_connection_pool=True)
