"""Scenarios: endings that race each other, and prompts that kill engines."""

import asyncio
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

from tests.faults.stage import Act

_SETTLED_WITHIN = 8.0  # seconds from the first cancel


async def cancel_races_finish(act: Act) -> None:
    """Outcomes sum to N, and no cancelled job has a result."""
    count = act.sized(800)
    ids = await act.client.submit(count, "pace=20")

    async def cancel(job_id: str) -> str:
        await act.pause(0, 8)
        return await act.client.cancel(job_id)

    said = Counter(await asyncio.gather(*(cancel(job_id) for job_id in ids)))
    await _settle(act, count)
    await _expect_no_results(act, "cancelled")
    act.verdict.notes.append(f"cancel answered {dict(said)}")


async def expiry_races_finish(act: Act) -> None:
    """Deadlines pass while their jobs wait, run and end."""
    count = act.sized(800)
    for _ in range(20):
        deadline = datetime.now(UTC) + timedelta(seconds=act.rng.uniform(2, 8))
        await act.client.submit(max(1, count // 20), "pace=20", deadline=deadline.isoformat())
    await _settle(act, len(act.client.labels))
    await _expect_no_results(act, "expired")


async def poison_among_good(act: Act) -> None:
    """A prompt that kills its engine ends as failed; every other prompt gets its answer."""
    poison: list[str] = []
    async with act.load(40, "pace=25"):
        for _ in range(act.sized(3)):
            poison += await act.client.submit(1, "POISON", service_class="standard")
            await act.pause(0.5, 2.0)
    await act.all_finished(within=120)
    rows = await act.stage.truth.fetch("SELECT id, status FROM jobs WHERE tenant_id = $1", act.tenant)
    wrong = [row["id"] for row in rows if (row["status"] == "failed") != (row["id"] in poison)]
    if wrong:
        act.verdict.failures.append(f"{len(wrong)} neighbours of a poison prompt did not get their answer")
        act.verdict.notes += await act.stage.truth.history(wrong[0])


async def cancel_of_twenty_thousand(act: Act) -> None:
    """At one third the rest of a large submission is cancelled, and is over soon after.

    The model is paused until all of it is there: otherwise most is answered while it is submitted.
    """
    await act.client.hold("pause")
    ids = await act.client.submit(act.sized(20_000), "pace=20")
    await act.client.hold("resume")
    await act.finished(len(ids) // 3, within=300)
    began = time.monotonic()
    await act.client.cancel_all(ids)
    await _settle(act, len(ids))
    took = time.monotonic() - began
    act.verdict.notes.append(f"all of it settled {took:.1f} s after the first cancel")
    if took > _SETTLED_WITHIN:
        act.verdict.failures.append(f"the cancel took longer than {_SETTLED_WITHIN:.0f} s to settle")
    await _expect_no_results(act, "cancelled")
    cancelled = await act.stage.truth.count(act.tenant, "cancelled")
    act.verdict.notes.append(f"{cancelled} were cancelled")
    if cancelled < len(ids) // 3:
        act.verdict.failures.append("too little was left to cancel: nothing was shown")


async def _settle(act: Act, count: int) -> None:
    await act.all_finished(within=60)
    done = await act.stage.truth.finished(act.tenant)
    if done != count:
        act.verdict.failures.append(f"{done} outcomes for {count} jobs")


async def _expect_no_results(act: Act, status: str) -> None:
    rows = await act.stage.truth.fetch(
        "SELECT count(*) AS jobs FROM jobs JOIN results ON results.job_id = jobs.id"
        " WHERE tenant_id = $1 AND status = $2 AND output IS NOT NULL",
        act.tenant,
        status,
    )
    if rows[0]["jobs"]:
        act.verdict.failures.append(f"{rows[0]['jobs']} {status} jobs have a result")
