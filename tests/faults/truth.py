"""What became of every accepted job: by the tables, by an audit of their changes, and from outside."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median, quantiles
from typing import Any, Final

import asyncpg

from tests.faults.load import Client

_SLOW: Final = 5.0
TERMINAL: Final = ("completed", "failed", "cancelled", "expired")

_AUDIT: Final = """
CREATE TABLE faults_status
  (job_id text, was text, now text, attempt int, at timestamptz DEFAULT clock_timestamp());
CREATE TABLE faults_result (job_id text, change text, at timestamptz DEFAULT clock_timestamp());
CREATE FUNCTION faults_note_status() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO faults_status VALUES (new.id, old.status, new.status, new.attempt); RETURN NULL; END $$;
CREATE FUNCTION faults_note_result() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO faults_result VALUES (coalesce(new.job_id, old.job_id), tg_op); RETURN NULL; END $$;
CREATE TRIGGER faults_status AFTER UPDATE OF status ON jobs
  FOR EACH ROW EXECUTE FUNCTION faults_note_status();
CREATE TRIGGER faults_result AFTER INSERT OR UPDATE OR DELETE ON results
  FOR EACH ROW EXECUTE FUNCTION faults_note_result();
"""
# Written twice, ended twice, moved after its end, or ended by an attempt that did not own it any more.
_DOUBLED: Final = """
SELECT job_id FROM faults_result WHERE job_id = ANY($1::text[]) GROUP BY job_id HAVING count(*) > 1
UNION SELECT job_id FROM faults_status WHERE job_id = ANY($1::text[]) AND now = ANY($2::text[])
  GROUP BY job_id HAVING count(*) > 1
UNION SELECT job_id FROM faults_status WHERE job_id = ANY($1::text[]) AND was = ANY($2::text[])
UNION SELECT job_id FROM faults_status WHERE job_id = ANY($1::text[]) AND was = 'queued' AND now = 'completed'
"""
_ROWS: Final = """
SELECT jobs.id, jobs.status, jobs.attempt, results.job_id IS NOT NULL AS ended, results.output
FROM jobs LEFT JOIN results ON results.job_id = jobs.id WHERE jobs.tenant_id = $1
"""


@dataclass
class Verdict:
    """One scenario's line. Anything but zeros in the first three, or a `note`, fails it."""

    scenario: str
    submitted: int = 0
    lost: int = 0
    doubled: int = 0
    stuck: int = 0
    executed_again: int = 0
    refused: int = 0
    duplicates: int = 0
    server_errors: int = 0
    seconds: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    recoveries: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.stuck or self.failures)


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """The median and the 95th percentile; zeros where there is nothing."""
    if len(values) < 2:
        return (values[0], values[0]) if values else (0.0, 0.0)
    return median(values), quantiles(values, n=20, method="inclusive")[-1]


class Truth:
    """Reads the harness's own database directly, past every link that may fail."""

    def __init__(self, address: str, *, answers_echo: bool) -> None:
        self._address = address
        self._answers_echo = answers_echo

    async def install(self) -> None:
        async with self._connected() as connection:
            await connection.execute(_AUDIT)

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        async with self._connected() as connection:
            rows: list[Any] = await connection.fetch(statement, *arguments)
            return rows

    async def execute(self, statement: str, *arguments: Any) -> None:
        async with self._connected() as connection:
            await connection.execute(statement, *arguments)

    async def unfinished(self, tenant: str) -> int:
        statement = "SELECT count(*) AS jobs FROM jobs WHERE tenant_id = $1 AND status <> ALL($2::text[])"
        return int((await self.fetch(statement, tenant, TERMINAL))[0]["jobs"])

    async def finished(self, tenant: str) -> int:
        statement = "SELECT count(*) AS jobs FROM jobs WHERE tenant_id = $1 AND status = ANY($2::text[])"
        return int((await self.fetch(statement, tenant, TERMINAL))[0]["jobs"])

    async def count(self, tenant: str, status: str) -> int:
        statement = "SELECT count(*) AS jobs FROM jobs WHERE tenant_id = $1 AND status = $2"
        return int((await self.fetch(statement, tenant, status))[0]["jobs"])

    async def restarts(self, tenant: str) -> list[tuple[float, float]]:
        """When jobs of the tenant began, and when each began again."""
        statement = """
            SELECT job_id, extract(epoch FROM faults_status.at)::float AS at FROM faults_status
            JOIN jobs ON jobs.id = job_id WHERE now = 'running' AND tenant_id = $1 ORDER BY job_id, at
        """
        rows = await self.fetch(statement, tenant)
        return [(one["at"], two["at"]) for one, two in pairwise(rows) if one["job_id"] == two["job_id"]]

    async def starts(self) -> int:
        """How often a job of anybody began."""
        statement = "SELECT count(*) AS starts FROM faults_status WHERE now = 'running'"
        return int((await self.fetch(statement))[0]["starts"])

    async def distinct_outputs(self, tenant: str) -> int:
        statement = """
            SELECT count(DISTINCT results.output::text) AS outputs FROM jobs
            JOIN results ON results.job_id = jobs.id WHERE tenant_id = $1 AND status = 'completed'
        """
        return int((await self.fetch(statement, tenant))[0]["outputs"])

    async def history(self, job_id: str) -> list[str]:
        statement = (
            "SELECT at, status, attempt, worker, reason FROM job_changes WHERE job_id = $1 ORDER BY version"
        )
        rows = await self.fetch(statement, job_id)
        return [" ".join(str(value) for value in row.values() if value is not None) for row in rows]

    async def running_on(self, pid: int) -> list[str]:
        statement = "SELECT id FROM jobs WHERE status = 'running' AND worker LIKE $1"
        return [row["id"] for row in await self.fetch(statement, f"worker-{pid}@%")]

    async def judge(self, verdict: Verdict, client: Client, tenant: str, *, patience: float) -> None:
        """Waits for the end of all jobs, then counts what must not be."""
        await self._settled(tenant, patience)
        first = await client.everything()
        rows = {row["id"]: row for row in await self.fetch(_ROWS, tenant)}
        second = await client.everything()
        labels = client.labels
        verdict.submitted = len(client.accepted)
        stuck = {job_id for job_id, row in rows.items() if row["status"] not in TERMINAL}
        verdict.stuck = len(stuck)
        verdict.lost = len(self._lost(rows, labels, stuck) | (labels.keys() - second.keys()))
        twice = {row["job_id"] for row in await self.fetch(_DOUBLED, list(rows), TERMINAL)}
        phantoms = rows.keys() - labels.keys()
        several = [label for label, ids in client.accepted.items() if len(ids) > 1]
        moved = {i for i, job in first.items() if _is_over(job) and second.get(i) != job}
        verdict.doubled = len(twice | phantoms | moved) + len(several)
        verdict.executed_again = await self._executed_again(list(rows))
        for row in rows.values():
            verdict.statuses[row["status"]] = verdict.statuses.get(row["status"], 0) + 1
        verdict.server_errors = client.server_errors
        if client.slowest[0] > _SLOW:
            verdict.notes.append("slowest request: {:.1f} s, {}".format(*client.slowest))

    async def _settled(self, tenant: str, patience: float) -> None:
        end = time.monotonic() + patience
        while time.monotonic() < end and await self.unfinished(tenant):  # noqa: ASYNC110
            # Other processes work, and only the table says how far.
            await asyncio.sleep(0.2)

    async def _executed_again(self, ids: Sequence[str]) -> int:
        statement = """
            SELECT count(*) - count(DISTINCT job_id) AS again FROM faults_status
            WHERE now = 'running' AND job_id = ANY($1::text[])
        """
        return int((await self.fetch(statement, list(ids)))[0]["again"])

    def _lost(self, rows: dict[str, Any], labels: dict[str, str], stuck: Iterable[str]) -> set[str]:
        """Accepted jobs that are gone, ended without a record, or were given another job's answer."""
        lost = set(labels) - set(rows)
        for job_id in rows.keys() & labels.keys() - set(stuck):
            row, echo = rows[job_id], f"[{labels[job_id]}#" if self._answers_echo else ""
            answered = row["output"] is not None and echo in row["output"]
            if not row["ended"] or (row["status"] == "completed") != answered:
                lost.add(job_id)
        return lost

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self._address, timeout=10)
        try:
            yield connection
        finally:
            await connection.close()


def _is_over(job: dict[str, Any]) -> bool:
    return job["status"] in TERMINAL
