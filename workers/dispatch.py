"""The dispatch window of one model: orders what it holds, claims what fits, keeps the engine full."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from core.errors import StoreUnavailable
from core.logs import get_logger
from core.tracing import tracing
from models.lifecycle import Status
from models.repositories.execution import Claim, Ending
from models.repositories.submission import ReadyAnswer
from models.service_class import ServiceClass
from models.views import JobView
from queues.order import Load, Rules, Shares, choose
from queues.prefixes import Warm
from workers.deliveries import Delivery
from workers.dispatch_policy import DispatchPolicy
from workers.endings import about, acknowledge, engine_failed, finished, patiently, tell
from workers.engines.protocol import Engine, EngineState
from workers.ledger import Ledger
from workers.meter import DeskMeter
from workers.quarantine import Isolation, isolation, opening
from workers.refill import MOST_UNHEARD, PATIENCE, refill
from workers.runner import Discard, Events, GiveBack, JobRunner, Outcome, Stop
from workers.window import Window

logger = get_logger(__name__)

# A reserved slot stays empty only while premium work has been seen this recently, in seconds.
_PREMIUM_MEMORY: Final = 60.0
# Where the relay refills in quarters of a window, three quarters left is the moment to ask.
_LOW_WATER: Final = 0.75
_STORE_RETRY: Final = 0.5  # seconds
_ENGINE_LOOK: Final = 0.1  # seconds
_LONGEST_LOOK: Final = 5.0  # seconds
_MOST_REFUSALS: Final = 6


def _let_go(_view: JobView, _request: dict[str, Any]) -> None:
    """Nobody keeps answers."""


class WorkerEvents(Events, Protocol):
    def finished(self, view: JobView) -> None: ...


@dataclass(slots=True)
class Run:
    """A claimed job, until its ending is written down; `answer` is one that needs no engine."""

    delivery: Delivery
    claim: Claim
    stopped: "asyncio.Future[Stop]"
    isolation: Isolation = Isolation.FREE
    answer: ReadyAnswer | None = None
    task: "asyncio.Task[None] | None" = None
    begun: bool = False
    is_heard: bool = False  # it made a token

    def is_stopped_by(self, *reasons: Stop) -> bool:
        return self.stopped.done() and self.stopped.result() in reasons


@dataclass(slots=True)
class Desk:
    """One model's engine, window and running jobs. Lives on the pool's loop."""

    model: str
    slots: int
    reserved: int
    engine: Engine
    runner: JobRunner
    ledger: Ledger
    events: WorkerEvents
    rules: Rules
    max_attempts: int = 3
    keep: Callable[[JobView, dict[str, Any]], None] = _let_go  # offers the answer to others who ask the same
    policy: DispatchPolicy | None = None
    is_held: bool = False  # somebody paused the model: what runs goes on, nothing new begins
    is_draining: bool = False
    shares: Shares = field(default_factory=Shares)
    window: Window = field(init=False)
    running: dict[str, Run] = field(default_factory=dict)
    inside: dict[tuple[str, int], Run] = field(default_factory=dict)  # what has a slot, by job and attempt
    counts: Counter[str] = field(default_factory=Counter)
    meter: DeskMeter = field(init=False)
    _classes: Counter[str] = field(default_factory=Counter)
    _begun: Counter[tuple[str | None, str | None]] = field(default_factory=Counter)
    _claiming: int = 0
    _unheard: int = 0
    _free_since: float | None = None  # that slots wait for company
    is_offered: bool = False  # what waits here was released once more, and nothing has moved since
    _refusals: int = 0
    _moved_at: float = field(default_factory=time.monotonic)
    _premium_seen: float = float("-inf")
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _claimed: asyncio.Event = field(default_factory=asyncio.Event)
    _open: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: "set[asyncio.Task[Any]]" = field(default_factory=set)

    def take(self, delivery: Delivery) -> None:
        if not self.window:
            self._moves()
        self.window.add(delivery)
        if delivery.envelope.service_class == ServiceClass.PREMIUM:
            self._premium_seen = time.monotonic()
        self._wake.set()

    def hold(self, *, held: bool) -> None:
        self.is_held = held
        self._wake.set()

    def is_stuck(self, after: float) -> bool:
        """Messages wait here, and for so many seconds nothing began or ended."""
        return bool(self.window) and not self.is_held and time.monotonic() - self._moved_at > after

    async def offer_again(self) -> None:
        """What waits here is released once more, and whoever claims a job first has it.

        The messages stay: a full prefetch keeps the broker from sending more to an engine that hangs.
        Without this, its window would fill up with all that the relay allows itself to release.
        """
        self._moves()
        self.is_offered = True
        await self.ledger.offer_again([(d.envelope.id, d.envelope.generation) for d in self.window])

    def _moves(self) -> None:
        self._moved_at, self.is_offered = time.monotonic(), False

    def forget(self, task_ids: Collection[str]) -> list[str]:
        """Drops those that were not begun; returns them."""
        return [task_id for task_id in task_ids if self.window.pop(task_id) is not None]

    async def serve(self) -> None:
        """Until cancelled: whenever slots are free, claim the next group and run it."""
        self._open.set()
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._open.wait()
                while chosen := self._choose():
                    await self._begin(chosen)
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def __post_init__(self) -> None:
        self.window = Window(self.max_attempts)
        self.meter = DeskMeter(self.model)

    def stop(self, run: Run, why: Stop) -> None:
        if not run.stopped.done():
            # A run that is being recorded has no lease any more because it ended, and has lost nothing.
            if why is Stop.LOST and run.begun:
                self.meter.lost()
            run.stopped.set_result(why)
            if run.begun and run.task is not None:
                run.task.cancel()

    async def finish_within(self, seconds: float) -> None:
        """Lets what runs finish for so long, then gives the rest back. Begins nothing more."""
        self.is_draining = True
        while self._claiming:  # it starts when its claim is committed, and then it runs
            self._claimed.clear()
            await self._claimed.wait()
        await self._idle(seconds)
        for run in list(self.running.values()):
            self.stop(run, Stop.DRAINED)
        await self._idle(None)

    async def _idle(self, seconds: float | None) -> None:
        tasks = [run.task for run in self.running.values() if run.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    def _choose(self) -> list[Delivery]:
        # A slot is free when its answer ends, not when that is written down. But what is written down slowly
        # must not pile up.
        engaged = max(len(self.inside), len(self.running) - self.slots)
        free = self.slots - engaged - self._claiming
        if free <= 0 or not self.window or not self._may_begin():
            return []
        may_begin = self._refill(free)
        if may_begin <= 0:
            return []
        inside = [run.isolation for run in self.inside.values()]
        kind, room = opening(self.window.kinds(), inside, slots=self.slots)
        load = Load(
            now=time.time(),
            limit=min(may_begin, room),
            unreserved=max(0, free - self._withheld()),
            backlog=self.window.backlog(),
            most=self._most(),
            warm=Warm.of(self._begun),
        )
        chosen, self.shares = choose(self.window.items(kind), self.shares, self.rules, load)
        return [held for item in chosen if (held := self.window.pop(item.key)) is not None]

    def _refill(self, free: int) -> int:
        """How many may begin in the free slots; where they wait for more, a look at them is due later."""
        now = time.monotonic()
        may_begin = self._group(free, waited=now - (self._free_since or now))
        if may_begin <= 0 and self.window.holds(ServiceClass.PREMIUM):
            may_begin = self._group(free, waited=PATIENCE)
        if may_begin > 0:
            self._free_since = None
        elif self._free_since is None:
            self._free_since = now
            # A little later, or the clock of the loop is ahead of ours and nobody looks again.
            asyncio.get_running_loop().call_later(1.1 * PATIENCE, self._wake.set)
        return may_begin

    def _group(self, free: int, *, waited: float) -> int:
        busy = self.slots - free
        return refill(
            slots=self.slots, busy=busy, waiting=len(self.window), unheard=self._unheard, waited=waited
        )

    def _may_begin(self) -> bool:
        return self._open.is_set() and not self.is_held and not self.is_draining

    def _withheld(self) -> int:
        """Slots kept for premium: those reserved and not yet in premium's use."""
        if time.monotonic() - self._premium_seen > _PREMIUM_MEMORY:
            return 0
        return max(0, self.reserved - self._classes[ServiceClass.PREMIUM])

    def _most(self) -> dict[str, int]:
        if self.policy is None:
            return {}
        return self.policy.most(slots=self.slots, bulk=self._classes[ServiceClass.BULK])

    async def _begin(self, chosen: Sequence[Delivery]) -> None:
        self._claiming = len(chosen)
        try:
            began = time.perf_counter()
            claims = await self.ledger.claim([(d.envelope.id, d.envelope.generation) for d in chosen])
            self.meter.claimed(claims, asked=len(chosen), seconds=time.perf_counter() - began)
            self._start_claimed(chosen, claims)
        except StoreUnavailable:
            logger.warning("claim_delayed", model=self.model, jobs=len(chosen))
            await self._claim_later(chosen)
        except Exception:
            # A desk that ended here would leave a worker that lives, takes messages and runs nothing.
            logger.exception("claim_failed", model=self.model, jobs=len(chosen))
            await self._claim_later(chosen)
        finally:
            self._claiming = 0
            self._claimed.set()

    async def _claim_later(self, chosen: Sequence[Delivery]) -> None:
        if self.is_draining:
            for delivery in chosen:
                delivery.requeue()
            return
        for delivery in chosen:
            self.window.add(delivery)
        await asyncio.sleep(_STORE_RETRY)

    def _start_claimed(self, chosen: Sequence[Delivery], claims: Sequence[Claim]) -> None:
        ours = {(claim.view.id, claim.view.generation): claim for claim in claims}
        for delivery in chosen:
            claim = ours.get((delivery.envelope.id, delivery.envelope.generation))
            if claim is None:
                self.counts["not_claimed"] += 1
                delivery.dropped("not claimed: cancelled, expired, or claimed before")
            else:
                self._start(delivery, claim)
        if self._runs_low(chosen):
            self._spawn(self.ledger.ask_for_more())

    def _runs_low(self, chosen: Sequence[Delivery]) -> bool:
        """A class that runs dry here gives its share away, however many of it wait elsewhere."""
        classes = {delivery.envelope.service_class for delivery in chosen}
        return any(self.window.holds(name) <= _LOW_WATER * self.slots for name in classes)

    def _start(self, delivery: Delivery, claim: Claim) -> None:
        job = claim.view
        # What the row says, not the message: one of an older relay does not speak of attempts.
        kind = isolation(
            attempts=job.attempt - 1 - job.excused, strikes=claim.strikes, limit=self.max_attempts
        )
        run = Run(delivery, claim, asyncio.get_running_loop().create_future(), kind)
        self.running[claim.view.id] = self.inside[_attempt(run)] = run
        self._count(run, 1)
        self._unheard += 1
        self._moves()
        delivery.started()
        run.task = self._spawn(self._execute(run))

    def _spawn(self, work: Any) -> "asyncio.Task[Any]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _execute(self, run: Run) -> None:
        job = run.claim.view
        with tracing().span("job.run", "consumer", parent=run.delivery.envelope.trace) as span:
            span.note(job=job.id, tenant=job.tenant_id, model=job.model, service_class=job.service_class)
            span.note(attempt=job.attempt, worker=job.worker)
            await self._run_to_its_end(run)

    async def _run_to_its_end(self, run: Run) -> None:
        try:
            await self._rule(run)
            run.begun = True
            if run.stopped.done():  # stopped between its claim and its first step
                outcome = self.runner.stopped(run.claim, run.stopped.result())
            elif run.answer is not None:
                outcome = self.runner.answered(run.claim, run.answer)
            else:
                outcome = await self.runner.run(run.claim, run.stopped, lambda: self._hear(run))
                self._watch_engine(outcome)
            run.begun = False  # It left the engine: to cancel now would lose its ending and its message.
            self._leave(run)
            await self._record(run, outcome)
        except Exception:
            # The lease runs out and the reaper gives the job back: nothing is lost.
            logger.exception("run_failed", **about(run.claim.view))
            run.delivery.dropped("internal error")
        finally:
            self._leave(run)
            if self.running.get(run.claim.view.id) is run:  # not a later attempt, if this one lost its lease
                del self.running[run.claim.view.id]
            self._moves()
            self._wake.set()

    async def _rule(self, run: Run) -> None:
        """What the policy makes of it, now that it starts; where there is an answer, its slot is free."""
        if self.policy is None:
            return
        ruling = await self.policy.ask(run.claim)
        run.claim, run.answer = ruling.claim, ruling.answer
        if run.answer is not None:
            self._leave(run)

    def _leave(self, run: Run) -> None:
        """Its slot is free, and what it left is to be written down."""
        if self.inside.pop(_attempt(run), None) is not None:
            self._count(run, -1)
            self._hear(run)
        self._wake.set()

    def _count(self, run: Run, by: int) -> None:
        """What is in the engine, by class and by how it begins."""
        self._classes[run.claim.view.service_class] += by
        begun = (run.delivery.envelope.prefix, run.delivery.envelope.trail)
        self._begun[begun] += by
        if not self._begun[begun]:
            del self._begun[begun]

    def _hear(self, run: Run) -> None:
        if not run.is_heard:
            run.is_heard = True
            self._unheard -= 1
            if self._unheard == MOST_UNHEARD - 1:
                self._wake.set()

    async def _record(self, run: Run, outcome: Outcome) -> None:
        self.counts[type(outcome).__name__.lower()] += 1
        match outcome:
            case Ending():
                await self._settle(run, outcome)
            case GiveBack():
                await self._give_back(run, outcome)
            case Discard():
                run.delivery.dropped(outcome.reason)

    async def _settle(self, run: Run, ending: Ending) -> None:
        with tracing().span("job.settle") as span:
            span.note(status=ending.status.value)
            settled = await patiently(lambda: self.ledger.settle(ending))
        if settled is None:
            self.counts["stale_finish"] += 1
            self.meter.fenced()
            logger.warning("stale_finish_refused", **about(run.claim.view))
            run.delivery.dropped("fenced: another attempt owns the job")
            return
        view = finished(run.claim.view, ending, settled)
        self.events.finished(view)
        self.keep(view, run.claim.request)
        if self.policy is not None:
            self.policy.note_ended(view)
        self.meter.ended(view, ending)
        tell(view, ending)
        self.counts[ending.status.value] += 1
        acknowledge(run.delivery, ending)

    async def _give_back(self, run: Run, outcome: GiveBack) -> None:
        job = run.claim.view
        returned = await patiently(lambda: self.ledger.give_back(job.id, job.attempt, outcome))
        if returned:
            self.meter.given_back(outcome.reason)
            logger.info("job_given_back", reason=outcome.reason, **about(job))
            self.events.emit(job.id, "status", {"status": Status.QUEUED.value, "reason": outcome.reason})
            run.delivery.dropped(f"given back: {outcome.reason}")
        else:
            # It is no longer running for us: being cancelled, or another attempt's.
            await self._settle(run, self.runner.cancelled(run.claim))

    def _watch_engine(self, outcome: Outcome) -> None:
        """An engine that just died would burn the attempts of whatever is handed to it next."""
        if not engine_failed(outcome):
            self._refusals = 0
        elif self._open.is_set():
            self._refusals = min(_MOST_REFUSALS, self._refusals + 1)
            self._open.clear()
            self._spawn(self._reopen())

    async def _reopen(self) -> None:
        # At least one look later: a supervisor may not know of the death yet that a broken stream told.
        await asyncio.sleep(min(_LONGEST_LOOK, _ENGINE_LOOK * 2**self._refusals))
        while not await self._is_ready():  # noqa: ASYNC110 - another process
            await asyncio.sleep(_ENGINE_LOOK)
        self._open.set()
        self._wake.set()

    async def _is_ready(self) -> bool:
        try:
            return (await self.engine.health()).state is EngineState.READY
        except Exception:  # with the task that ends here, nothing would ever begin again
            logger.exception("engine_not_seen", model=self.model)
            return False


def _attempt(run: Run) -> tuple[str, int]:
    return run.claim.view.id, run.claim.view.attempt
