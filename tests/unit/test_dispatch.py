"""The desk: what it claims, when it runs, and what becomes of each message."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.errors import EngineFailure, EngineRefused, EngineUnavailable, EngineUnreachable, StoreUnavailable
from core.settings import OrderSettings
from models.lifecycle import Status
from models.repositories.execution import Claim
from models.repositories.submission import ReadyAnswer
from models.views import JobView
from queues.messages import JobEnvelope, task_id
from queues.order import Rules
from tests.fakes.fake_ledger import FakeLedger
from tests.fakes.simulated_engine import Latency, SimulatedEngine
from workers.dispatch import Desk
from workers.dispatch_policy import Ruling
from workers.engines.protocol import EngineHealth, Prompt
from workers.runner import GiveBack, JobRunner, Limits, Stop, first_token_within

LIMITS = Limits(timedelta(seconds=30), max_attempts=3, retention=timedelta(days=1))


class FakeDelivery:
    """Records how its message ended."""

    def __init__(self, envelope: JobEnvelope) -> None:
        self.envelope = envelope
        self.task_id = task_id(envelope)
        self.ended: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        self.begun = asyncio.Event()

    def started(self) -> None:
        self.begun.set()

    def succeeded(self, result: str) -> None:
        self._end("succeeded", result)

    def failed(self, error: Exception) -> None:
        self._end("failed", str(error))

    def dropped(self, reason: str) -> None:
        self._end("dropped", reason)

    def revoked(self) -> None:
        self._end("revoked", "")

    def requeue(self) -> None:
        self._end("requeued", "")

    def _end(self, how: str, why: str) -> None:
        assert not self.ended.done(), "settled twice"
        self.ended.set_result((how, why))


class FakeEvents:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, Any]]] = []
        self.views: list[JobView] = []

    def token(self, job_id: str, **data: Any) -> None:
        self.seen.append((job_id, "token", data))

    def emit(self, job_id: str, kind: str, data: dict[str, Any]) -> None:
        self.seen.append((job_id, kind, data))

    def finished(self, view: JobView) -> None:
        self.views.append(view)

    def kinds(self, job_id: str) -> list[str]:
        return [kind for job, kind, _ in self.seen if job == job_id]


def envelope(job_id: str, **changes: Any) -> JobEnvelope:
    values: dict[str, Any] = {
        "generation": 0,
        "model": "default",
        "service_class": "standard",
        "tenant": "acme",
        "priority": 5,
        "cost": 10,
        "arrived": 0.0,
    }
    return JobEnvelope(id=job_id, **(values | changes))


class Bench:
    """A desk with a simulated engine, a fake ledger and recorded events."""

    def __init__(self, *, slots: int = 2, reserved: int = 0, limits: Limits = LIMITS, **engine: Any) -> None:
        self.ledger, self.events = FakeLedger(), FakeEvents()
        self.engine = SimulatedEngine(slots=slots, **engine)
        self.desk = Desk(
            model="default",
            slots=slots,
            reserved=reserved,
            engine=self.engine,
            runner=JobRunner(self.engine, self.events, limits),
            ledger=self.ledger,  # type: ignore[arg-type]
            events=self.events,
            rules=Rules.of(OrderSettings()),
        )

    def submit(self, job_id: str, *, job: dict[str, Any] | None = None, **message: Any) -> FakeDelivery:
        if job_id not in self.ledger.jobs:
            self.ledger.add(job_id, **(job or {}))
        delivery = FakeDelivery(envelope(job_id, **message))
        self.desk.take(delivery)  # type: ignore[arg-type]
        return delivery


@asynccontextmanager
async def running(bench: Bench) -> AsyncIterator[Bench]:
    await bench.engine.start()
    serving = asyncio.create_task(bench.desk.serve())
    try:
        yield bench
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await bench.engine.close()


SLOW = Latency(first_token=timedelta(0), per_token=timedelta(hours=1))


async def test_a_job_is_claimed_run_and_acknowledged_after_its_result() -> None:
    async with running(Bench()) as bench:
        delivery = bench.submit("job_1")
        assert (await delivery.ended)[0] == "succeeded"
        assert bench.ledger.jobs["job_1"].status is Status.COMPLETED
        assert bench.events.views[0].output == bench.ledger.endings[0].output
        assert bench.events.kinds("job_1")[:2] == ["status", "token"]


async def test_tokens_are_numbered_from_zero_within_their_attempt() -> None:
    async with running(Bench()) as bench:
        await bench.submit("job_1").ended
        tokens = [data for _, kind, data in bench.events.seen if kind == "token"]
        assert [data["index"] for data in tokens] == list(range(len(tokens)))
        assert {data["attempt"] for data in tokens} == {1}


async def test_a_job_delivered_twice_runs_once() -> None:
    async with running(Bench()) as bench:
        first, second = bench.submit("job_1"), bench.submit("job_1", generation=1)
        assert {(await first.ended)[0], (await second.ended)[0]} == {"succeeded", "dropped"}
        assert len(bench.ledger.endings) == 1


async def test_a_cancelled_job_is_dropped_without_running() -> None:
    async with running(Bench()) as bench:
        delivery = bench.submit("job_1", job={"status": Status.CANCELLED})
        assert (await delivery.ended)[0] == "dropped"
        assert not delivery.begun.is_set()


async def test_no_more_jobs_run_than_there_are_slots() -> None:
    async with running(Bench(slots=2, latency=SLOW)) as bench:
        deliveries = [bench.submit(f"job_{n}") for n in range(5)]
        await asyncio.gather(*(d.begun.wait() for d in deliveries[:2]))
        assert len(bench.desk.running) == 2
        assert len(bench.desk.window) == 3


async def test_a_freed_slot_is_filled_at_once() -> None:
    async with running(Bench(slots=1)) as bench:
        deliveries = [bench.submit(f"job_{n}") for n in range(20)]
        assert {(await d.ended)[0] for d in deliveries} == {"succeeded"}


async def test_a_slot_is_free_when_its_answer_ends_and_not_when_that_is_written_down() -> None:
    async with running(Bench(slots=1)) as bench:
        written = bench.ledger.written = asyncio.Event()
        first, second, third = (bench.submit(f"job_{n}") for n in range(3))
        await second.begun.wait()
        assert bench.ledger.endings == []
        assert not third.begun.is_set(), "what is not written down must not pile up"
        written.set()
        assert {(await d.ended)[0] for d in (first, second, third)} == {"succeeded"}


class Knows:
    """A policy that has an answer to some jobs."""

    def __init__(self, *known: str) -> None:
        self._known = known

    async def ask(self, claim: Claim) -> Ruling:
        if claim.view.id not in self._known:
            return Ruling(claim)
        label = {"level": 2, "name": "template", "reason": "84 wait"}
        usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        answer = ReadyAnswer({"text": "Known."}, usage, datetime.now(UTC))
        return Ruling(replace(claim, view=replace(claim.view, degradation=label)), answer)

    def most(self, *, slots: int, bulk: int) -> dict[str, int]:
        return {}

    def note_ended(self, view: JobView) -> None: ...


async def test_a_job_whose_answer_is_known_at_the_claim_takes_no_slot() -> None:
    bench = Bench(slots=1, latency=SLOW)
    bench.desk.policy = Knows("known")  # type: ignore[assignment]
    async with running(bench):
        known, slow = bench.submit("known"), bench.submit("slow")
        assert (await known.ended)[0] == "succeeded"
        await slow.begun.wait()
        assert bench.events.kinds("known") == ["degraded"]
        [view] = bench.events.views
        assert (view.output, view.status) == ({"text": "Known."}, Status.COMPLETED)
        assert view.degradation is not None
        assert list(bench.desk.inside) == [("slow", 1)]


async def test_a_reserved_slot_waits_for_premium_once_premium_was_seen() -> None:
    async with running(Bench(slots=2, reserved=1, latency=SLOW)) as bench:
        premium = bench.submit("p1", service_class="premium", job={"service_class": "premium"})
        others = [bench.submit(f"s{n}") for n in range(3)]
        await premium.begun.wait()
        await others[0].begun.wait()
        bench.desk.stop(bench.desk.running["p1"], Stop.LOST)
        await premium.ended
        assert len(bench.desk.running) == 1
        late = bench.submit("p2", service_class="premium", job={"service_class": "premium"})
        await late.begun.wait()


async def test_a_cancel_takes_the_job_from_the_engine() -> None:
    async with running(Bench(latency=SLOW)) as bench:
        delivery = bench.submit("job_1")
        await delivery.begun.wait()
        _set(bench, "job_1", Status.CANCELLING)
        bench.desk.stop(bench.desk.running["job_1"], Stop.CANCELLED)
        assert (await delivery.ended)[0] == "revoked"
        assert bench.ledger.endings[0].output is None
        assert bench.engine.busy == 0


async def test_a_lost_lease_discards_the_run() -> None:
    async with running(Bench(latency=SLOW)) as bench:
        delivery = bench.submit("job_1")
        await delivery.begun.wait()
        bench.desk.stop(bench.desk.running["job_1"], Stop.LOST)
        assert await delivery.ended == ("dropped", "lease_lost")
        assert bench.ledger.endings == []


async def test_a_job_that_comes_back_is_kept_when_its_lost_run_ends() -> None:
    async with running(Bench(latency=SLOW)) as bench:
        first = bench.submit("job_1")
        await first.begun.wait()
        lost = bench.desk.running["job_1"]
        await bench.ledger.give_back("job_1", 1, GiveBack("lease_lost", excused=False))
        await bench.submit("job_1", generation=1).begun.wait()
        bench.desk.stop(lost, Stop.LOST)
        assert await first.ended == ("dropped", "lease_lost")
        assert bench.desk.running["job_1"].claim.view.attempt == 2


async def test_a_finish_that_comes_too_late_is_refused_and_counted() -> None:
    async with running(Bench(latency=Latency(per_token=timedelta(milliseconds=10)))) as bench:
        delivery = bench.submit("job_1")
        await delivery.begun.wait()
        job = bench.ledger.jobs["job_1"]
        bench.ledger.jobs["job_1"] = JobView(**{**_fields(job), "attempt": job.attempt + 1})
        assert (await delivery.ended)[0] == "dropped"
        assert bench.desk.counts["stale_finish"] == 1
        assert bench.events.views == []


async def test_what_the_engine_refuses_fails_without_another_attempt() -> None:
    bench = Bench(fail=lambda _: EngineRefused("no such grammar"))
    async with running(bench):
        delivery = bench.submit("job_1")
        assert (await delivery.ended)[0] == "failed"
        assert bench.ledger.endings[0].error == {"code": "engine_refused", "message": "no such grammar"}


async def test_an_engine_failure_gives_the_job_back_and_counts_the_attempt() -> None:
    bench = Bench(fail=_once(EngineUnavailable("gone")))
    async with running(bench):
        delivery = bench.submit("job_1")
        assert await delivery.ended == ("dropped", "given back: engine_unavailable")
        job = bench.ledger.jobs["job_1"]
        assert (job.status, job.generation, job.excused) == (Status.QUEUED, 1, 0)
        again = bench.submit("job_1", generation=1)
        assert (await again.ended)[0] == "succeeded"
        assert bench.events.kinds("job_1").count("reset") == 1


async def test_after_the_last_attempt_the_job_fails_for_good() -> None:
    async with running(Bench(fail=lambda _: EngineUnavailable("gone"))) as bench:
        for generation in range(3):
            await bench.submit("job_1", generation=generation).ended
        assert bench.ledger.jobs["job_1"].status is Status.FAILED
        error = bench.ledger.endings[0].error
        assert error is not None
        assert error["code"] == "attempts_exhausted"


async def test_a_poison_prompt_fails_alone_and_its_neighbours_are_answered() -> None:
    def die(prompt: Prompt) -> EngineFailure | None:
        if "poison" not in str(prompt.messages):
            return None
        bench.engine.crash()
        return EngineUnavailable("killed by its prompt")

    bench = Bench(slots=9, latency=Latency(timedelta(milliseconds=1), timedelta(milliseconds=1)), fail=die)
    names = [f"job_{n}" for n in range(8)]
    async with running(bench):
        ended = await asyncio.gather(
            *(_until_over(bench, name) for name in names),
            _until_over(bench, "job_poison", job={"request": {"prompt": "poison", "max_tokens": 4}}),
        )
    assert ended == [Status.COMPLETED] * 8 + [Status.FAILED]
    [letter] = [one for one in bench.ledger.endings if one.status is Status.FAILED]
    assert (letter.attempt, (letter.error or {})["code"]) == (3, "attempts_exhausted")
    assert max(job.attempt for job in bench.ledger.jobs.values()) <= 3


async def _until_over(bench: Bench, name: str, **changes: Any) -> Status:
    """Does what the relay does: a job that was given back is sent again, and says what happened to it."""
    while True:
        job = bench.ledger.jobs.get(name)
        if job is not None and job.is_finished:
            return job.status
        await bench.submit(
            name,
            generation=job.generation if job else 0,
            attempts=job.attempt - job.excused if job else 0,
            strikes=bench.ledger.strikes[name],
            **changes,
        ).ended


async def test_a_request_that_never_reached_its_engine_is_no_attempt() -> None:
    async with running(Bench(fail=_once(EngineUnreachable("refused")))) as bench:
        await bench.submit("job_1").ended
        job = bench.ledger.jobs["job_1"]
        assert (job.status, job.attempt, job.excused) == (Status.QUEUED, 1, 1)
        assert bench.ledger.strikes["job_1"] == 0


async def test_an_engine_that_cannot_be_seen_is_looked_at_again() -> None:
    bench = Bench(fail=_once(EngineUnavailable("gone")))
    looks, health = [OSError("no news"), OSError("no news")], bench.engine.health

    async def see() -> EngineHealth:
        if looks:
            raise looks.pop()
        return await health()

    bench.engine.health = see  # type: ignore[method-assign]
    async with running(bench):
        await bench.submit("job_1").ended
        assert (await bench.submit("job_2").ended)[0] == "succeeded"
        assert looks == []


async def test_a_silent_job_is_given_back_by_a_working_engine_and_has_a_strike() -> None:
    soon = replace(LIMITS, job_stall=timedelta(milliseconds=50))
    async with running(Bench(latency=Latency(first_token=timedelta(hours=1)), limits=soon)) as bench:
        assert await bench.submit("job_1").ended == ("dropped", "given back: generation_stalled")
        assert (bench.ledger.strikes["job_1"], bench.engine.busy) == (1, 0)


def test_a_long_prompt_has_more_time_for_its_first_token() -> None:
    short, long = (first_token_within(timedelta(minutes=2), cost=cost) for cost in (200, 40_000))

    assert (round(short), round(long)) == (121, 360)


async def test_a_last_attempt_waits_until_it_has_the_engine_to_itself() -> None:
    async with running(Bench(slots=4, latency=SLOW)) as bench:
        first = bench.submit("job_1")
        await first.begun.wait()
        last = bench.submit("job_last", job={"attempt": 2}, attempts=2, strikes=1)
        fresh = bench.submit("job_2")
        bench.desk.stop(bench.desk.running["job_1"], Stop.LOST)
        await last.begun.wait()
        assert (list(bench.desk.running), fresh.begun.is_set()) == (["job_last"], False)
        bench.desk.stop(bench.desk.running["job_last"], Stop.LOST)
        await fresh.begun.wait()


async def test_a_held_model_begins_nothing_until_it_is_resumed() -> None:
    async with running(Bench(latency=SLOW)) as bench:
        first = bench.submit("job_1")
        await first.begun.wait()
        bench.desk.hold(held=True)
        second = bench.submit("job_2")
        bench.desk.stop(bench.desk.running["job_1"], Stop.LOST)
        await first.ended
        assert not second.begun.is_set()
        assert bench.ledger.claims == [["job_1"]]
        bench.desk.hold(held=False)
        await second.begun.wait()


async def test_draining_gives_running_jobs_back_without_counting_the_attempt() -> None:
    async with running(Bench(latency=SLOW)) as bench:
        delivery = bench.submit("job_1")
        await delivery.begun.wait()
        await bench.desk.finish_within(0.01)
        assert await delivery.ended == ("dropped", "given back: drained")
        assert bench.ledger.jobs["job_1"].excused == 1


async def test_a_deadline_that_passes_while_running_expires_the_job() -> None:
    async with running(Bench(latency=SLOW)) as bench:
        soon = datetime.now(UTC) + timedelta(milliseconds=30)
        delivery = bench.submit("job_1", job={"deadline": soon})
        assert (await delivery.ended)[0] == "failed"
        assert bench.ledger.endings[0].status is Status.EXPIRED


async def test_a_store_that_is_away_delays_the_claim_and_loses_nothing() -> None:
    async with running(Bench()) as bench:
        bench.ledger.failures.append(StoreUnavailable("away"))
        delivery = bench.submit("job_1")
        assert (await delivery.ended)[0] == "succeeded"


@pytest.mark.parametrize("begun", [True, False])
async def test_forgotten_messages_leave_the_window_only(*, begun: bool) -> None:
    async with running(Bench(slots=1, latency=SLOW)) as bench:
        first, second = bench.submit("job_1"), bench.submit("job_2")
        await first.begun.wait()
        asked = first if begun else second
        assert list(bench.desk.forget([asked.task_id])) == ([] if begun else [asked.task_id])


def _set(bench: Bench, job_id: str, status: Status) -> None:
    bench.ledger.jobs[job_id] = JobView(**{**_fields(bench.ledger.jobs[job_id]), "status": status})


def _fields(view: JobView) -> dict[str, Any]:
    return {name: getattr(view, name) for name in JobView.__slots__}


def _once(error: Exception) -> Callable[[Any], Exception | None]:
    errors = [error]
    return lambda _: errors.pop() if errors else None


async def test_what_waits_behind_a_hung_engine_is_offered_to_others_and_kept() -> None:
    async with running(Bench(slots=1, latency=SLOW)) as bench:
        first = bench.submit("job_1")
        await first.begun.wait()
        second = bench.submit("job_2", generation=0)
        stuck = bench.desk.is_stuck(after=0.0)
        await bench.desk.offer_again()

        assert stuck
        assert bench.ledger.offered == [("job_2", 0)]
        assert bench.desk.is_offered
        assert not second.ended.done()
        assert [held.task_id for held in bench.desk.window] == ["job_2"]


async def test_a_window_that_moves_is_not_stuck() -> None:
    async with running(Bench(slots=1, latency=SLOW)) as bench:
        first = bench.submit("job_1")
        await first.begun.wait()
        empty = bench.desk.is_stuck(after=0.0)
        bench.submit("job_2")

        assert not empty
        assert not bench.desk.is_stuck(after=3600.0)
        bench.desk.hold(held=True)
        assert not bench.desk.is_stuck(after=0.0)
