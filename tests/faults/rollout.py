"""Scenarios: a rollout. Processes of this version and of the one before share a database and a broker."""

import asyncio
from itertools import product
from pathlib import Path

import httpx

from tests.faults.fleet import LINKS, ROOT, Member
from tests.faults.history import newest_migration
from tests.faults.outages import expect_no_server_errors
from tests.faults.stage import Act

_JOBS = 80
# What a later release does before its processes come: we know neither the number nor the column.
_NEXT_SCHEMA = (
    "ALTER TABLE jobs ADD COLUMN of_the_next_release text; UPDATE alembic_version SET version_num = 'next'"
)


async def versions_side_by_side(act: Act) -> None:
    """The schema goes first; then one process of each kind is new beside an old one, and workers die."""
    fleet = act.fleet
    act.verdict.notes.append(f"migration {newest_migration(fleet.before)} beside {newest_migration(ROOT)}")
    async with act.load(40):
        await asyncio.to_thread(fleet.migrate, ROOT)
        await act.finished(20)
        for kind in LINKS:
            await _become(act, f"{kind}-1", ROOT)
        await _check_readiness(act)
        await _check_pairs(act)
        for worker in fleet.workers():
            await act.kill_worker(worker)
            fleet.start(worker.name)
            await fleet.until_ready()
            await act.finished(20)
    expect_no_server_errors(act)


async def rolling_upgrade(act: Act) -> None:
    """Until nothing old is left, once back and forth, and then the schema of the next release comes."""
    fleet = act.fleet
    old = [name for name, member in fleet.members.items() if member.source != ROOT]
    act.rng.shuffle(old)
    async with act.load(60):
        for name in old:
            await _become(act, name, ROOT)
        for source in (fleet.before, ROOT):
            for name in ("api-0", "worker-0"):
                await _become(act, name, source)
        await act.finished(20)
        await act.stage.truth.execute(_NEXT_SCHEMA)
        await fleet.until_ready()
        await act.finished(20)
    expect_no_server_errors(act)
    act.expect(lambda verdict: f"{verdict.executed_again} were run again" if verdict.executed_again else None)


async def _become(act: Act, name: str, source: Path) -> None:
    """SIGTERM, and the other version in its place."""
    code = await act.fleet.terminate(name)
    if code:
        act.verdict.notes.append(f"{name} ended with {code} at SIGTERM")
    act.member(name).source = source
    act.fleet.start(name)
    await act.fleet.until_ready()


async def _check_readiness(act: Act) -> None:
    """A load balancer must not take the old ones out because the schema went first."""
    old = [member for member in _members(act, "api") if member.source != ROOT]
    async with httpx.AsyncClient(timeout=5) as client:
        answers = [await client.get(f"{member.url}/ready") for member in old]
    ready = all(answer.status_code == httpx.codes.OK for answer in answers)
    # Until then every other schema was "not migrated".
    knows_better = "is_behind" in (act.fleet.before / "models/repositories/schema.py").read_text()
    if not ready:
        said = "the old API calls the new schema not ready"
        (act.verdict.failures if knows_better else act.verdict.notes).append(said)


async def _check_pairs(act: Act) -> None:
    """What either API accepts, either worker runs."""
    runs: set[tuple[Path, Path]] = set()
    workers = {str(worker.pid): worker.source for worker in act.fleet.workers()}
    for api in _members(act, "api"):
        ids = await act.client.submit(act.sized(_JOBS), "pace=25", at=api.url)
        await act.ended(ids, within=60)
        rows = await act.stage.truth.fetch("SELECT worker FROM jobs WHERE id = ANY($1::text[])", ids)
        names = {row["worker"].partition("@")[0].removeprefix("worker-") for row in rows if row["worker"]}
        runs |= {(api.source, workers[pid]) for pid in names if pid in workers}
    missing = set(product((act.fleet.before, ROOT), repeat=2)) - runs
    for api_source, worker_source in missing:
        pair = f"{newest_migration(api_source)} and a worker of {newest_migration(worker_source)}"
        act.verdict.failures.append(f"no job went through an API of {pair}")


def _members(act: Act, kind: str) -> list[Member]:
    return [member for member in act.fleet.members.values() if member.kind == kind]
