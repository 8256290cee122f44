"""A platform on its own name spaces, and the acts that scenarios play on it."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx

from core.settings import DatabaseSettings, Settings
from models.dialect import open_database
from models.keys import ADMIN, JOBS, new_key
from models.repositories import access
from models.repositories.access import TenantRow
from models.service_class import ServiceClass
from tests.faults.fleet import ROOT, Fleet, Member, Shape, plain
from tests.faults.load import Client
from tests.faults.proxy import Way
from tests.faults.servers import Private
from tests.faults.truth import TERMINAL, Truth, Verdict
from tests.services import Services

_SLOWEST_ANSWER: Final = 20.0


@dataclass
class Stage:
    """`scale` shrinks every load; `private` servers may be killed."""

    fleet: Fleet
    truth: Truth
    rng: random.Random
    private: Private | None
    scale: float

    @asynccontextmanager
    async def act(self, scenario: str, *, patience: float) -> AsyncIterator["Act"]:
        """At its end everything is mended, and what became of the jobs is judged."""
        tenant, key = await self._tenant(scenario)
        verdict = Verdict(scenario)
        headers = {"Authorization": f"Bearer {key}"}
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(
            base_url=self.fleet.url, headers=headers, timeout=_SLOWEST_ANSWER, limits=limits
        ) as http:
            act = Act(self, Client(http, scenario), tenant, verdict)
            refused, repeated, began = self._refused(), self._repeated(), time.monotonic()
            try:
                yield act
                await self.fleet.mend()
            except Exception as error:  # noqa: BLE001 - one scenario's failure is a line of the table
                verdict.failures.append(f"{type(error).__name__}: {error}")
                with suppress(Exception):
                    await self.fleet.mend()
            try:
                await self.truth.judge(verdict, act.client, tenant, patience=patience)
            except Exception as error:  # noqa: BLE001 - the same
                verdict.failures.append(f"not judged: {type(error).__name__}: {error}")
            verdict.recoveries = await act.recoveries()
            verdict.refused = self._refused() - refused
            verdict.duplicates = self._repeated() - repeated
            verdict.seconds = time.monotonic() - began
            verdict.failures += [said for expect in act.expectations if (said := expect(verdict))]

    def _refused(self) -> int:
        return self.fleet.lines("stale_finish_refused")

    def _repeated(self) -> int:
        deliveries = self.fleet.deliveries()
        return deliveries.total() - len(deliveries)

    async def _tenant(self, scenario: str) -> tuple[str, str]:
        name = f"{scenario}-{secrets.token_hex(3)}"
        if self.fleet.schema != ROOT:  # which this code may not fit
            return await asyncio.to_thread(self.fleet.tenant, name)
        now = datetime.now(UTC)
        pepper = Settings.model_fields["api"].default.pepper
        row, clear = new_key(
            name,
            "faults",
            pepper=pepper,
            created_at=now,
            scopes=(JOBS, ADMIN),
            max_class=ServiceClass.PREMIUM,
        )
        database = open_database(DatabaseSettings(url=self.fleet.services.database_url))
        try:
            async with database.begin() as connection:
                await access.add_tenant(connection, TenantRow(name, name, now))
                await access.add_key(connection, row)
        finally:
            await database.close()
        return name, clear


# What a scenario asks of its finished verdict: what is wrong with it, or nothing.
Expectation = Callable[[Verdict], str | None]


@dataclass
class Act:
    """What one scenario needs: its client, its fleet, and where it notes whose jobs it hurt."""

    stage: Stage
    client: Client
    tenant: str
    verdict: Verdict
    hurt: list[tuple[float, list[str]]] = field(default_factory=list)
    expectations: list[Expectation] = field(default_factory=list)

    @property
    def fleet(self) -> Fleet:
        return self.stage.fleet

    @property
    def rng(self) -> random.Random:
        return self.stage.rng

    def sized(self, count: int) -> int:
        return max(1, round(count * self.stage.scale))

    def expect(self, expectation: Expectation) -> None:
        """Asked once everything is counted."""
        self.expectations.append(expectation)

    def member(self, name: str) -> Member:
        return self.fleet.members[name]

    @asynccontextmanager
    async def load(self, rate: float, words: str = "pace=25", **changes: Any) -> AsyncIterator[None]:
        """A steady stream of jobs in the background, running before the body begins."""
        stop = asyncio.Event()
        task = asyncio.create_task(self.client.stream(rate, stop, words, **changes))
        try:
            await self.finished(5)
            yield
        finally:
            stop.set()
            await task

    async def finished(self, count: int, within: float = 60.0) -> None:
        """Waits until so many more jobs of this act are over."""
        target = await self.stage.truth.finished(self.tenant) + count
        await until(lambda: self._reached(target), within, f"{count} more finished jobs")

    async def all_finished(self, within: float) -> None:
        """Waits until no job of this act is open."""
        await until(self._none_open, within, "the end of all jobs")

    async def ended(self, job_ids: Sequence[str], within: float) -> None:
        """Waits until these are over."""
        await until(lambda: self._are_over(job_ids), within, f"the end of {len(job_ids)} jobs")

    async def pause(self, least: float, most: float) -> None:
        await asyncio.sleep(self.rng.uniform(least, most))

    async def kill_worker(self, member: Member) -> None:
        """Ends it with SIGKILL, and notes the jobs that it held."""
        at = member.kill()
        await self.hurts(at, member.pid)

    async def hurts(self, at: float, pid: int) -> None:
        ids = await self.stage.truth.running_on(pid)
        if ids:
            self.hurt.append((at, ids))

    async def kill_at(
        self, kind: str, service: str, pattern: bytes, way: Way, within: float = 30.0
    ) -> Member:
        """Kills whoever of that kind first sends or is sent that very message, which goes no further."""
        victims: list[Member] = []
        sprung = asyncio.Event()

        def spring(victim: Member) -> None:
            if not victims:
                victim.kill()
                victims.append(victim)
                sprung.set()

        members = [member for member in self.fleet.members.values() if member.kind == kind]
        for member in members:
            member.links[service].set_trap(pattern, way, partial(spring, member))
        async with asyncio.timeout(within):
            await sprung.wait()
        for member in members:
            member.links[service].trap = None
        return victims[0]

    async def recoveries(self) -> list[float]:
        """For each hurt: seconds until the last of its jobs gave a first token again."""
        if self.fleet.shape.llamacpp:
            return await self._restarts()
        labels = self.client.labels
        begun: dict[str, list[float]] = {}
        for worker in self.fleet.workers():
            for at, label in worker.engine.first_tokens() if worker.engine else ():
                begun.setdefault(label, []).append(at)
        waits = []
        for at, ids in self.hurt:
            again = [min((t for t in begun.get(labels.get(i, ""), ()) if t > at), default=None) for i in ids]
            known = [when - at for when in again if when is not None]
            waits += [max(known)] if known else []
        return waits

    async def _restarts(self) -> list[float]:
        """Of an engine that keeps no log of ours: until the last job of each kill was claimed again."""
        last: dict[float, float] = {}
        for began, again in await self.stage.truth.restarts(self.tenant):
            kill = max((at for at, _ in self.hurt if began <= at < again), default=None)
            if kill is not None:
                last[kill] = max(last.get(kill, 0.0), again - kill)
        return list(last.values())

    async def _none_open(self) -> bool:
        return not await self.stage.truth.unfinished(self.tenant)

    async def _are_over(self, job_ids: Sequence[str]) -> bool:
        statement = (
            "SELECT count(*) AS jobs FROM jobs WHERE id = ANY($1::text[]) AND status <> ALL($2::text[])"
        )
        rows = await self.stage.truth.fetch(statement, list(job_ids), list(TERMINAL))
        return not rows[0]["jobs"]

    async def _reached(self, target: int) -> bool:
        return await self.stage.truth.finished(self.tenant) >= target


async def until(ready: Callable[[], Awaitable[bool]], within: float, what: str) -> None:
    end = time.monotonic() + within
    while not await ready():
        if time.monotonic() > end:
            raise TimeoutError(f"within {within:.0f} s not: {what}")
        await asyncio.sleep(0.1)


@asynccontextmanager
async def staged(
    services: Services,
    folder: Path,
    shape: Shape,
    *,
    seed: int,
    private: Private | None = None,
    scale: float = 1.0,
    before: str = "",
) -> AsyncIterator[Stage]:
    """`before` is the commit that an outdated fleet begins with, where it is not the one before this."""
    fleet = Fleet(services, folder, shape, before=before)
    truth = Truth(plain(services.database_url), answers_echo=not shape.llamacpp)
    try:
        await fleet.open()
        await truth.install()
        await fleet.start_all()
        # Not a secret: the same seed plays the same faults.
        yield Stage(fleet, truth, random.Random(seed), private, scale)  # noqa: S311
    finally:
        await fleet.close()


Scenario = Callable[[Act], Awaitable[None]]
Names = Sequence[str]
