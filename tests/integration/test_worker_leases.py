"""A worker's leases: kept while its engine works, let go when it hangs, lost when they ran out."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from core.metrics import REGISTRY
from core.settings import Settings, WorkerSettings
from models.catalogue import Catalogue
from models.dialect import Database
from models.lifecycle import Status
from models.repositories import execution, fleet, holds
from models.repositories.holds import Hold
from queues.messages import JobEnvelope
from queues.upkeep import Upkeep
from tests.contracts.stores import LEASES, ago, move_time, queued, read, rows
from tests.fakes.fake_publisher import FakePublisher
from tests.fakes.simulated_engine import Latency, SimulatedEngine
from tests.unit.test_dispatch import FakeDelivery, envelope
from workers.dispatch import Run
from workers.receiver import Dispatcher

NEVER = Latency(first_token=timedelta(hours=1))
BEAT = timedelta(milliseconds=50)
MODEL = "default"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # The lease is long: a test moves its end, and a busy machine must not.
    worker = WorkerSettings(lease=timedelta(minutes=5), heartbeat=BEAT, engine_stall=timedelta(minutes=5))
    return settings.model_copy(update={"worker": worker})


class Bench:
    def __init__(self, settings: Settings, database: Database, **engine: Any) -> None:
        self.settings, self.database = settings, database
        self.engine = SimulatedEngine(slots=4, **engine)
        models = list(Catalogue.bundled().models)
        self.worker = Dispatcher(settings, models, {MODEL: self.engine}, name="w1")
        self.upkeep = Upkeep(database, FakePublisher([MODEL]), settings, [MODEL])

    async def run(self, job_id: str | None = None, *, generation: int = 0) -> tuple[str, FakeDelivery]:
        """A job in the engine."""
        if job_id is None:
            job_id = (await queued(self.database, model=MODEL)).id
        delivery = FakeDelivery(envelope(job_id, generation=generation))
        self.worker.take([delivery])  # type: ignore[list-item]
        await delivery.begun.wait()
        while not self.engine.busy:  # noqa: ASYNC110 - nor does the engine
            await asyncio.sleep(0)
        return job_id, delivery

    def running(self, job_id: str) -> Run:
        return self.worker._desks[MODEL].running[job_id]

    async def beats(self) -> None:
        """A beat that began after this call is over."""
        wanted = self.worker.beats + 2
        while self.worker.beats < wanted:  # noqa: ASYNC110 - a beat rings no bell
            await asyncio.sleep(0.01)


@asynccontextmanager
async def bench_of(settings: Settings, database: Database, **engine: Any) -> AsyncIterator[Bench]:
    bench = Bench(settings, database, **engine)
    await bench.worker.start()
    try:
        async with asyncio.timeout(30):
            yield bench
    finally:
        await bench.worker.drain(timedelta(0))
        await bench.worker.close()


async def lease_of(database: Database, job_id: str) -> Any:
    found = await rows(database, LEASES, job_id)
    return found[0] if found else None


async def test_a_job_that_waits_in_a_working_engine_keeps_its_lease(
    settings: Settings, database: Database
) -> None:
    async with bench_of(settings, database, latency=NEVER) as bench:
        job_id, _ = await bench.run()
        await move_time(database, LEASES, job_id, expires_at=ago(seconds=1))
        await bench.beats()
        reaped = await bench.upkeep.reap()

    assert reaped == 0


async def test_a_hung_engine_loses_its_jobs_and_each_has_a_strike(
    settings: Settings, database: Database
) -> None:
    async with bench_of(settings, database, latency=NEVER) as bench:
        job_id, delivery = await bench.run()
        bench.engine._progressed_at = time.monotonic() - 301
        how, why = await delivery.ended
        job = await read(database, job_id)

    assert (how, why) == ("dropped", "given back: generation_stalled")
    assert (job.status, job.attempt, job.excused) == (Status.QUEUED, 1, 0)
    assert await lease_of(database, job_id) is None


async def test_a_stopped_run_is_not_extended_even_when_it_cannot_be_given_back(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench_of(settings, database, latency=NEVER) as bench:
        job_id, delivery = await bench.run()
        stuck = asyncio.Event()

        async def never(*_: Any) -> bool:
            await stuck.wait()
            return True

        monkeypatch.setattr(bench.worker._ledger, "give_back", never)
        bench.engine._progressed_at = time.monotonic() - 301
        while not bench.running(job_id).stopped.done():
            await bench.beats()
        await move_time(database, LEASES, job_id, expires_at=ago(seconds=1))
        await bench.beats()
        reaped = await bench.upkeep.reap()
        stuck.set()
        await delivery.ended

    assert reaped == 1


async def test_a_worker_that_slept_past_its_lease_learns_of_it_and_stops(
    settings: Settings, database: Database
) -> None:
    async with bench_of(settings, database, latency=NEVER) as bench:
        job_id, delivery = await bench.run()
        given: list[str] = []
        while not given:  # a heartbeat between the two makes the lease good again
            await move_time(database, LEASES, job_id, expires_at=ago(seconds=1))
            async with database.begin() as connection:
                lost = await execution.expired_leases(connection, limit=10)
                given = await execution.give_back(
                    database, connection, [(one.job_id, one.attempt) for one in lost], excused=False
                )
        how, why = await delivery.ended

    assert given == [job_id]
    assert (how, why) == ("dropped", "lease_lost")
    assert bench.engine.busy == 0


async def test_a_suspended_worker_does_not_blame_its_engine(settings: Settings, database: Database) -> None:
    async with bench_of(settings, database, latency=NEVER) as bench:
        job_id, _ = await bench.run()
        bench.worker._blind_until = time.monotonic() + 60  # its nap was much too long
        bench.engine._progressed_at = time.monotonic() - 301
        await bench.beats()

        assert not bench.running(job_id).stopped.done()


async def test_a_paused_model_begins_nothing_from_the_next_beat_on(
    settings: Settings, database: Database
) -> None:
    async with bench_of(settings, database, latency=NEVER) as bench:
        await bench.run()
        async with database.begin() as connection:
            await holds.put(database, connection, MODEL, Hold.PAUSED)
        await bench.beats()
        held = await queued(database, model=MODEL)
        delivery = FakeDelivery(envelope(held.id))
        bench.worker.take([delivery])  # type: ignore[list-item]
        await bench.beats()
        waiting = (await read(database, held.id)).status
        async with database.begin() as connection:
            await holds.lift(connection, MODEL)
        await delivery.begun.wait()

    assert waiting is Status.QUEUED


async def test_an_engine_that_is_slow_to_say_how_it_is_costs_no_lease(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench_of(settings, database, latency=NEVER) as bench:
        job_id, _ = await bench.run()
        asked = asyncio.Event()

        async def hangs() -> Any:
            asked.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(bench.engine, "health", hangs)
        await asked.wait()
        await move_time(database, LEASES, job_id, expires_at=ago(seconds=1))
        await bench.beats()

        assert await bench.upkeep.reap() == 0
        monkeypatch.undo()


def test_an_envelope_of_an_older_relay_says_nothing_of_attempts() -> None:
    older = JobEnvelope("job_1", 3, "default", "bulk", "acme", 5, 10, 1.0)

    assert (older.attempts, older.strikes) == (0, 0)


async def test_a_heartbeat_that_fails_in_an_unforeseen_way_is_followed_by_the_next(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench_of(settings, database, latency=NEVER) as bench:
        job_id, _ = await bench.run()

        async def breaks() -> frozenset[str]:
            raise RuntimeError("nobody foresaw this")

        monkeypatch.setattr(bench.worker._ledger, "held_models", breaks)
        await bench.beats()
        await move_time(database, LEASES, job_id, expires_at=ago(seconds=1))
        await bench.beats()

        assert await bench.upkeep.reap() == 0


async def test_a_heartbeat_says_how_the_worker_is(settings: Settings, database: Database) -> None:
    async with bench_of(settings, database, latency=NEVER) as bench:
        await bench.run()
        await bench.beats()
        async with database.read() as connection:
            [row] = await fleet.alive(connection, within=timedelta(minutes=1))

    told = row.stats["models"][MODEL]
    assert (told["running"], told["window"], told["ready"]) == (1, 0, True)
    assert told["tokens_running"] == 10
    assert REGISTRY.get_sample_value("penstock_jobs_running", {"model": MODEL}) is not None
