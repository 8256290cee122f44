"""The life of jobs against a small model of it: whatever happens in whatever order, the books balance."""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from core.settings import Settings
from models.dialect import Database, open_database
from models.lifecycle import TERMINAL, Status, can_move
from models.repositories import dead_letters, execution, jobs, outbox, submission
from models.repositories.jobs import Change
from models.tables import DeadLetter
from queues.upkeep import Upkeep
from tests.contracts.stores import (
    HOUR,
    JOBS,
    LEASES,
    OUTBOX,
    OVER,
    RESULTS,
    TENANT,
    accept,
    ago,
    claim,
    clear,
    new_job,
    now,
    rows,
    table,
)
from tests.fakes.fake_publisher import FakePublisher

T = TypeVar("T")
MAX_ATTEMPTS = 3
FEW = 5  # so that the rules meet in the same jobs
NUMBER = st.integers(0, FEW)
CHOSEN = st.lists(st.tuples(NUMBER, st.sampled_from([0, 0, 0, -1, 1])), min_size=1, max_size=4)
HELD = (Status.RUNNING, Status.CANCELLING)
WORKERS = st.sampled_from(["w1", "w2"])
LETTERS = table(DeadLetter)


class Letter(StrEnum):
    """What became of a job whose attempts are used up."""

    OPEN = "open"
    REQUEUED = "requeued"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True)
class Known:
    """What the model knows of a job. `late` may not start any more; `lost` has a lease that ran out.

    `letter` is None unless its attempts are used up; `erased` has no prompt to send again.
    """

    status: Status = Status.QUEUED
    version: int = 1
    generation: int = 0
    attempt: int = 0
    excused: int = 0
    waited_too_long: bool = False
    late: bool = False
    lost: bool = False
    output: bool = False
    worker: str = ""
    letter: Letter | None = None
    erased: bool = False

    def to(self, status: Status, **changes: Any) -> "Known":
        return replace(self, status=status, version=self.version + 1, **changes)


class LifeOfJobs(RuleBasedStateMachine):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.settings = settings
        self.known: dict[str, Known] = {}
        self.seen: dict[str, tuple[Status, int]] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize()
    def open(self) -> None:
        self.database: Database = self.run(self._open())
        self.upkeep = Upkeep(self.database, FakePublisher(["tiny"]), self.settings, ["tiny"])
        # Hypothesis leaves whole rules out of a run, so every run begins in the middle of things.
        self.submit(["long"])
        for _ in range(MAX_ATTEMPTS):
            self.claim([(0, 0)], lost=True, worker="w1")
            self.reap()
        self.submit(["long"] * FEW)
        self.claim([(1, 0), (2, 0), (3, 0)], lost=False, worker="w1")
        self.claim([(4, 0)], lost=True, worker="w2")
        self.cancel(3, mine=True)

    def live(self) -> list[str]:
        return [job_id for job_id, job in self.known.items() if job.status not in TERMINAL]

    def job(self, number: int) -> str:
        """Mostly one that lives, and sometimes the last one that ended."""
        ended = [job_id for job_id, job in self.known.items() if job.status in TERMINAL]
        choice = [*self.live(), *ended[-1:]]
        return choice[number % len(choice)]

    async def _open(self) -> Database:
        database = open_database(self.settings.database)
        await clear(database)
        return database

    def teardown(self) -> None:
        self.run(self.database.close())
        self.runner.close()

    @precondition(lambda self: len(self.live()) < FEW)
    @rule(waits=st.lists(st.sampled_from(["long", "long", "no longer"]), min_size=1, max_size=4))
    def submit(self, waits: Sequence[str]) -> None:
        group = [new_job(queue_deadline=ago(seconds=1) if wait == "no longer" else None) for wait in waits]
        self.run(accept(self.database, *group))
        for job, wait in zip(group, waits, strict=True):
            too_long = wait == "no longer"
            self.known[job.id] = Known(waited_too_long=too_long, late=too_long)

    @rule(numbers=CHOSEN, lost=st.booleans(), worker=WORKERS)
    def claim(self, numbers: Sequence[tuple[int, int]], *, lost: bool, worker: str) -> None:
        wanted = [(self.job(number), off) for number, off in numbers]
        pairs = {(job_id, self.known[job_id].generation + off) for job_id, off in wanted}
        free = {job_id for job_id, off in wanted if not off and self._may_start(job_id)}

        lease = OVER if lost else HOUR
        claims = self.run(claim(self.database, *pairs, worker=worker, lease=lease))

        assert {one.view.id for one in claims} == free
        for job_id in free:
            job = self.known[job_id]
            self.known[job_id] = job.to(Status.RUNNING, attempt=job.attempt + 1, lost=lost, worker=worker)

    def _may_start(self, job_id: str) -> bool:
        return self.known[job_id].status is Status.QUEUED and not self.known[job_id].late

    @rule(lost=st.booleans(), worker=WORKERS)
    def claim_all(self, *, lost: bool, worker: str) -> None:
        self.claim([(number, 0) for number in range(FEW)], lost=lost, worker=worker)

    @rule(numbers=CHOSEN, worker=WORKERS)
    def extend(self, numbers: Sequence[tuple[int, int]], *, worker: str) -> None:
        """A heartbeat: in time, late but before the reaper, or by one whose job another took over."""
        named = {self.job(number) for number, _ in numbers}
        mine = {j for j in named if self.known[j].status in HELD and self.known[j].worker == worker}

        held = self.run(self._extend(sorted(named), worker))

        flags = {j: (self.known[j].attempt, self.known[j].status is Status.CANCELLING) for j in mine}
        assert {one.job_id: (one.attempt, one.cancel_requested) for one in held} == flags
        for job_id in mine:
            self.known[job_id] = replace(self.known[job_id], lost=False)

    async def _extend(self, job_ids: Sequence[str], worker: str) -> list[execution.HeldLease]:
        async with self.database.begin() as connection:
            return await execution.extend_leases(connection, job_ids, worker=worker, lease=HOUR)

    @rule(number=NUMBER, off=st.sampled_from([0, 0, -1, 1]), status=st.sampled_from(sorted(TERMINAL)))
    def settle(self, number: int, off: int, status: Status) -> None:
        job_id = self.job(number)
        job = self.known[job_id]
        output = {"text": "."} if status is Status.COMPLETED else None
        attempt = job.attempt + off
        ending = execution.Ending(job_id, attempt, status, expires_at=now() + HOUR, output=output)

        settled = self.run(self._settle(ending))

        right = not off and job.status in HELD and can_move(job.status, status)
        assert settled == ({(job_id, attempt)} if right else set())
        if right:
            self.known[job_id] = job.to(status, output=output is not None)

    async def _settle(self, *endings: execution.Ending) -> set[tuple[str, int]]:
        async with self.database.begin() as connection:
            return set(await execution.settle(connection, endings))

    @rule(numbers=CHOSEN, excused=st.booleans())
    def give_back(self, numbers: Sequence[tuple[int, int]], *, excused: bool) -> None:
        chosen = [(self.job(number), off) for number, off in numbers]
        attempts = {(job_id, self.known[job_id].attempt + off) for job_id, off in chosen}
        right = {j for j, off in chosen if not off and self.known[j].status is Status.RUNNING}

        returned = self.run(self._give_back(sorted(attempts), excused=excused))

        assert sorted(returned) == sorted(right)
        for job_id in right:
            self._returned(job_id, excused=excused)

    async def _give_back(self, attempts: Sequence[tuple[str, int]], *, excused: bool) -> list[str]:
        async with self.database.begin() as connection:
            return await execution.give_back(self.database, connection, attempts, excused=excused)

    def _returned(self, job_id: str, *, excused: bool) -> None:
        job = self.known[job_id]
        self.known[job_id] = job.to(
            Status.QUEUED, generation=job.generation + 1, excused=job.excused + excused, lost=False
        )

    @rule(number=NUMBER, mine=st.sampled_from([True, True, False]))
    def cancel(self, number: int, *, mine: bool) -> None:
        job_id = self.job(number)
        job = self.known[job_id]

        changed = self.run(self._cancel(job_id, TENANT if mine else "other"))

        assert changed == (mine and job.status in {Status.QUEUED, Status.RUNNING})
        if changed:
            self.known[job_id] = job.to(
                Status.CANCELLED if job.status is Status.QUEUED else Status.CANCELLING
            )

    async def _cancel(self, job_id: str, tenant_id: str) -> bool:
        async with self.database.begin() as connection:
            return await jobs.cancel(connection, tenant_id, job_id, expires_at=now() + HOUR)

    @rule(number=NUMBER, deadline=st.sampled_from(["keep", "past", "none"]))
    def patch(self, number: int, deadline: str) -> None:
        job_id = self.job(number)
        job = self.known[job_id]
        sets = {} if deadline == "keep" else {"sets_deadline": True}
        past = {"deadline": ago(seconds=1)} if deadline == "past" else {}

        changed = self.run(self._patch(job_id, Change(priority=9, **sets, **past)))

        assert changed == (job.status is Status.QUEUED)
        if changed:
            kept = job.late if deadline == "keep" else deadline == "past"
            self.known[job_id] = job.to(
                Status.QUEUED, generation=job.generation + 1, late=kept or job.waited_too_long
            )

    async def _patch(self, job_id: str, change: Change) -> bool:
        async with self.database.begin() as connection:
            return await jobs.change(self.database, connection, TENANT, job_id, change)

    @rule()
    def expire(self) -> None:
        expired = self.run(self.upkeep.expire())

        late = [j for j, job in self.known.items() if job.status is Status.QUEUED and job.late]
        assert expired == len(late)
        for job_id in late:
            self.known[job_id] = self.known[job_id].to(Status.EXPIRED)

    @rule()
    def reap(self) -> None:
        reaped = self.run(self.upkeep.reap())

        lost = [j for j, job in self.known.items() if job.status in HELD and job.lost]
        assert reaped == len(lost)
        for job_id in lost:
            job = self.known[job_id]
            if job.status is Status.CANCELLING:
                self.known[job_id] = job.to(Status.CANCELLED)
            elif job.attempt - job.excused >= MAX_ATTEMPTS:
                self.known[job_id] = job.to(Status.FAILED, letter=Letter.OPEN)
            else:
                self._returned(job_id, excused=False)

    @rule(number=NUMBER, current=st.booleans())
    def release(self, number: int, *, current: bool) -> None:
        job_id = self.job(number)
        self.run(self._release(job_id, self.known[job_id].generation - (not current)))

    async def _release(self, job_id: str, generation: int) -> None:
        async with self.database.begin() as connection:
            await outbox.mark_released(connection, [(job_id, generation)])

    @rule(number=NUMBER)
    def erase(self, number: int) -> None:
        job_id = self.job(number)
        job = self.known[job_id]

        erased = self.run(self._erase(job_id))

        assert erased == (job.status in TERMINAL)
        if erased:
            self.known[job_id] = job.to(job.status, output=False, erased=True)

    async def _erase(self, job_id: str) -> bool:
        async with self.database.begin() as connection:
            return await jobs.erase(connection, TENANT, job_id)

    @rule(number=NUMBER)
    def requeue(self, number: int) -> None:
        job_id = self.dead_letter(number)
        job = self.known[job_id]
        again = new_job().id

        sent = self.run(self._requeue(job_id, again))

        assert sent == (job.letter is Letter.OPEN and not job.erased)
        if sent:
            self.known[job_id] = replace(job, letter=Letter.REQUEUED)
            self.known[again] = Known()

    async def _requeue(self, job_id: str, new_id: str) -> bool:
        async with self.database.begin() as connection:
            job = await dead_letters.requeue(connection, job_id, new_id=new_id, at=now())
            if job is not None:
                await submission.accept(self.database, connection, [job])
        return job is not None

    @rule(number=NUMBER)
    def discard(self, number: int) -> None:
        job_id = self.dead_letter(number)
        job = self.known[job_id]

        discarded = self.run(self._discard(job_id))

        assert discarded == (job.letter is Letter.OPEN)
        if discarded:
            self.known[job_id] = replace(job, letter=Letter.DISCARDED)

    async def _discard(self, job_id: str) -> bool:
        async with self.database.begin() as connection:
            return await dead_letters.discard(connection, job_id)

    def dead_letter(self, number: int) -> str:
        letters = [job_id for job_id, job in self.known.items() if job.letter is not None]
        return letters[number % len(letters)]

    @invariant()
    def the_books_balance(self) -> None:
        tables = self.run(self._tables())
        found = {row.id: row for row in tables[0]}
        self._check_moves(found)
        self._check_model(found)
        self._check_companions(found, *tables[1:4])
        self._check_letters(tables[4])

    async def _tables(self) -> list[list[Any]]:
        return [await rows(self.database, of) for of in (JOBS, RESULTS, OUTBOX, LEASES, LETTERS)]

    def _check_moves(self, found: dict[str, Any]) -> None:
        for job_id, (before, version) in self.seen.items():
            after = Status(found[job_id].status)
            assert after is before or can_move(before, after), f"{before} became {after}"
            assert found[job_id].version > version or after is before
        self.seen = {job_id: (Status(row.status), row.version) for job_id, row in found.items()}

    def _check_model(self, found: dict[str, Any]) -> None:
        for job_id, job in self.known.items():
            row = found.pop(job_id)
            assert (row.status, row.version) == (job.status, job.version)
            assert (row.generation, row.attempt, row.excused) == (job.generation, job.attempt, job.excused)
            assert (row.finished_at is not None) == (job.status in TERMINAL)
        assert not found

    def _check_companions(
        self, found: dict[str, Any], results: list[Any], waiting: list[Any], leases: list[Any]
    ) -> None:
        known = self.known.items()
        ended = {j: (job.attempt, job.output) for j, job in known if job.status in TERMINAL}
        assert {row.job_id: (row.attempt, row.output is not None) for row in results} == ended
        queued = {j: job.generation for j, job in known if job.status is Status.QUEUED}
        assert {row.job_id: row.generation for row in waiting} == queued
        held = {j: (job.attempt, job.status is Status.CANCELLING) for j, job in known if job.status in HELD}
        assert {row.job_id: (row.attempt, row.cancel_requested) for row in leases} == held
        assert not any(job.output for _, job in known if job.status is Status.CANCELLED)

    def _check_letters(self, letters: list[Any]) -> None:
        states = {
            row.job_id: Letter.REQUEUED
            if row.requeued_as
            else Letter.DISCARDED
            if row.discarded_at
            else Letter.OPEN
            for row in letters
        }
        assert states == {j: job.letter for j, job in self.known.items() if job.letter is not None}
        again = [row.requeued_as for row in letters if row.requeued_as]
        assert len(set(again)) == len(again)
        assert set(again) <= self.known.keys()


def test_whatever_happens_the_books_balance(settings: Settings) -> None:
    run_state_machine_as_test(
        lambda: LifeOfJobs(settings),
        settings=hypothesis_settings(
            max_examples=45,
            stateful_step_count=20,
            deadline=None,
            database=None,
            # Twenty steps can be read; to shrink them on a database takes minutes.
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        ),
    )
