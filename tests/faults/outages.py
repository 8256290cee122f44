"""Scenarios: the services behind the platform die, forget and come back; links to them fail in every way."""

import asyncio
import signal
from dataclasses import replace
from typing import Final

from redis.asyncio import Redis

from core.settings import BrokerSettings
from queues.messages import SCHEMA, JobEnvelope
from queues.publisher import AmqpPublisher
from queues.topology import Topology
from tests.faults.processes import COMMIT, COMMITTED
from tests.faults.proxy import Fault, Link, Way
from tests.faults.servers import Private
from tests.faults.stage import Act, until

_MODEL: Final = "default"
_TERMINATE: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND random() < $1
"""
_RELEASED: Final = "UPDATE outbox SET state = 'released', released_at = now() WHERE tenant_id = $1"
_HOLD: Final = {Fault.CUT: 2.0, Fault.SLOW: 4.0, Fault.HALF_OPEN: 5.0, Fault.BLACK_HOLE: 12.0}


def _private(act: Act) -> Private:
    if act.stage.private is None:
        raise RuntimeError("this scenario kills servers, so it needs its own")
    return act.stage.private


async def broker_killed(act: Act) -> None:
    async with act.load(60):
        for _ in range(act.sized(2)):
            await act.pause(0.5, 2)
            await asyncio.to_thread(_private(act).rabbitmq.restart)
            await act.finished(30)


async def broker_restarted(act: Act) -> None:
    """In good order: connections are closed, queues are written."""
    async with act.load(60):
        for _ in range(act.sized(2)):
            await act.pause(0.5, 2)
            await asyncio.to_thread(_private(act).rabbitmq.restart, signal.SIGTERM)
            await act.finished(30)
    expect_no_server_errors(act)


async def broker_outage(act: Act) -> None:
    """A minute without a broker; submissions are accepted all the time."""
    async with act.load(30):
        await act.pause(0.5, 2)
        rabbitmq = _private(act).rabbitmq
        await asyncio.to_thread(rabbitmq.stop, signal.SIGTERM)
        await asyncio.sleep(60 * min(1.0, act.stage.scale))
        await asyncio.to_thread(rabbitmq.start)
        await act.finished(30)
    expect_no_server_errors(act)


async def queue_purged(act: Act) -> None:
    """What the broker forgets is released again.

    While no worker is there: otherwise each has taken ahead what was released, and the queues are empty.
    """
    async with act.load(100):
        for _ in range(act.sized(2)):
            await act.pause(1, 2)
            names = [worker.name for worker in act.fleet.workers()]
            await asyncio.gather(*(act.fleet.terminate(name) for name in names))
            await until(lambda: asyncio.to_thread(_purge, act), 10, "a message to purge")
            for name in names:
                act.fleet.start(name)
            await act.fleet.until_ready()


def _purge(act: Act) -> bool:
    """Whether something was there to forget."""
    publisher = AmqpPublisher(_broker(act), [_MODEL])
    try:
        channel = publisher._connected()
        queues = Topology(_broker(act)).queues([_MODEL])
        return sum(channel.queue_purge(queue.name) for queue in queues) > 0
    finally:
        publisher._disconnect()


def _broker(act: Act) -> BrokerSettings:
    services = act.fleet.services
    return BrokerSettings.model_validate({"url": services.broker_url, "namespace": services.namespace})


async def redis_flushed(act: Act) -> None:
    """Emptied while it runs, and killed and started empty."""
    services = act.fleet.services
    async with act.load(60):
        for _ in range(act.sized(3)):
            await act.pause(0.5, 2)
            async with Redis.from_url(services.redis_url) as redis:
                await redis.flushall()
            await act.finished(30)
            await asyncio.to_thread(_private(act).redis.restart)
            await act.finished(30)
    expect_no_server_errors(act)


async def redis_outage(act: Act) -> None:
    async with act.load(60):
        redis = _private(act).redis
        await asyncio.to_thread(redis.stop)
        await act.finished(100)  # everything goes on
        await asyncio.sleep(10 * act.stage.scale)
        await asyncio.to_thread(redis.start)
        await act.finished(30)
    expect_no_server_errors(act)


async def postgres_restarted(act: Act) -> None:
    """Stopped at once, so that it recovers from its log."""
    async with act.load(60):
        for _ in range(act.sized(2)):
            await act.pause(0.5, 2)
            await asyncio.to_thread(_private(act).postgres.restart, signal.SIGQUIT)
            await act.finished(30)


async def backends_terminated(act: Act) -> None:
    """Backends die wherever they are; connections at a COMMIT, before it is done or before it is known."""
    members = list(act.fleet.members.values())
    async with act.load(60):
        for _ in range(act.sized(40)):
            link = act.rng.choice(members).links["postgresql"]
            before = act.rng.random() < 0.5
            link.set_trap(COMMIT if before else COMMITTED, Way.ASK if before else Way.ANSWER, _nothing)
            await act.stage.truth.execute(_TERMINATE, 0.1)
            await act.pause(0.1, 0.4)
        await act.finished(30)


def _nothing() -> None: ...


async def messages_tripled(act: Act) -> None:
    """Every message three times and shuffled, and once more by the relay."""
    relay = act.member("relay-0")
    relay.kill(signal.SIGSTOP)
    await act.client.submit(act.sized(1000))
    envelopes = await _envelopes(act)
    publisher = AmqpPublisher(_broker(act), [_MODEL])
    try:
        for _ in range(3):
            act.rng.shuffle(envelopes)
            await publisher.publish(envelopes)
    finally:
        await publisher.close()
    await act.finished(len(envelopes) // 2)
    relay.kill(signal.SIGCONT)


async def messages_of_the_next_version(act: Act) -> None:
    """A worker that cannot read a message refuses it; the job is told to be lost, and released again."""
    relay = act.member("relay-0")
    relay.kill(signal.SIGSTOP)
    count = act.sized(300)
    await act.client.submit(count)
    envelopes = [replace(envelope, schema=SCHEMA + 1) for envelope in await _envelopes(act)]
    await act.stage.truth.execute(_RELEASED, act.tenant)
    refused = act.fleet.lines("message_refused")
    publisher = AmqpPublisher(_broker(act), [_MODEL])
    try:
        await publisher.publish(envelopes)
    finally:
        await publisher.close()
    await until(lambda: _refused(act, refused + count), 30, "the refusal of every message")
    relay.kill(signal.SIGCONT)
    await act.all_finished(within=60)


async def _refused(act: Act, count: int) -> bool:
    return act.fleet.lines("message_refused") >= count


async def _envelopes(act: Act) -> list[JobEnvelope]:
    rows = await act.stage.truth.fetch("SELECT * FROM outbox WHERE tenant_id = $1", act.tenant)
    return [
        JobEnvelope(
            id=row["job_id"],
            generation=row["generation"],
            model=row["model"],
            service_class=row["service_class"],
            tenant=row["tenant_id"],
            priority=9 - row["rank"],
            cost=row["cost"],
            arrived=row["created_at"].timestamp(),
        )
        for row in rows
    ]


async def links_cut(act: Act) -> None:
    await _every_link(act, Fault.CUT)


async def links_black_holed(act: Act) -> None:
    await _every_link(act, Fault.BLACK_HOLE)


async def links_slowed(act: Act) -> None:
    await _every_link(act, Fault.SLOW)


async def links_half_open(act: Act) -> None:
    await _every_link(act, Fault.HALF_OPEN)


async def _every_link(act: Act, fault: Fault) -> None:
    """Each kind of link, of a process chosen at random, two at a time."""
    pairs = _pairs(act)
    async with act.load(40):
        for pair in pairs[: act.sized(len(pairs))]:
            for link in pair:
                link.fail(fault)
            await asyncio.sleep(_HOLD[fault])
            for link in pair:
                link.heal()
            try:
                await act.finished(10)
            except TimeoutError:
                names = ", ".join(link.name for link in pair)
                act.verdict.failures.append(f"nothing moved for a minute after: {names}")
                break


def _pairs(act: Act) -> list[list[Link]]:
    """Two links of processes of different kinds: of two APIs or workers, one can always do its work."""
    members = list(act.fleet.members.values())
    act.rng.shuffle(members)
    chosen = {(member.kind, service): link for member in members for service, link in member.links.items()}
    chosen["client", "api"] = act.fleet.front
    links = list(chosen.values())
    act.rng.shuffle(links)
    pairs: list[list[Link]] = []
    for link in links:
        kind = link.name.split("-")[0]
        single = next((p for p in pairs if len(p) == 1 and p[0].name.split("-")[0] != kind), None)
        if single is None:
            pairs.append([link])
        else:
            single.append(link)
    return pairs


def expect_no_server_errors(act: Act) -> None:
    if act.client.server_errors:
        act.verdict.failures.append(f"5xx: {dict(act.client.answers)}")
