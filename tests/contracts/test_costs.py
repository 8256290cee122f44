"""What must not grow unseen, measured in units that no machine changes: statements, calls, bytes."""

import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import event

from benchmarks.order import NOW, RULES, window
from models.dialect import Database
from models.repositories import releasing
from queues.messages import JobEnvelope, decode
from queues.order import Load, Shares, choose
from tests.contracts.stores import accept, claim, ending, new_job, settle

GROUP = 64

# Statements of one group of 64 jobs, per stage. The goal is three a job, and they are amortised over a group.
STATEMENTS = {
    "postgresql": {"submit": 1, "look": 1, "claim": 1, "settle": 2},
    "sqlite": {"submit": 3, "look": 1, "claim": 5, "settle": 6},
}
CALLS_PER_JOB = 40  # Python calls of the order per job of a window of 512
BYTES_PER_MESSAGE = 1_500  # that a worker keeps of a message in its window


class Statements:
    """Those that reach the driver, without BEGIN and COMMIT."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def take(self) -> int:
        count, self.texts = len(self.texts), []
        return count


@pytest.fixture
def statements(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Statements]:
    seen = Statements()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):  # SQLite's own, which SQLAlchemy sends as a statement
            seen.texts.append(statement)

    copy = asyncpg.Connection.copy_records_to_table

    async def counted(self: asyncpg.Connection, name: str, **options: Any) -> str:
        seen.texts.append(f"COPY {name}")
        status: str = await copy(self, name, **options)
        return status

    monkeypatch.setattr(asyncpg.Connection, "copy_records_to_table", counted)
    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def test_a_group_costs_few_statements(database: Database, statements: Statements) -> None:
    jobs = [new_job() for _ in range(GROUP)]
    found = {}

    await accept(database, *jobs)
    found["submit"] = statements.take()
    async with database.read() as connection:
        await releasing.look(connection)
    found["look"] = statements.take()
    claims = await claim(database, *((job.id, 0) for job in jobs))
    found["claim"] = statements.take()
    settled = await settle(database, *(ending(one.view) for one in claims))
    found["settle"] = statements.take()

    assert len(settled) == GROUP
    assert found == STATEMENTS[database.engine.dialect.name]


def test_the_order_takes_few_calls() -> None:
    items, load = window(512), Load(now=NOW, limit=256, unreserved=256)

    with counted_calls() as calls:
        choose(items, Shares(), RULES, load)

    assert calls[0] <= CALLS_PER_JOB * len(items)


@contextmanager
def counted_calls() -> Iterator[list[int]]:
    calls = [0]

    def count(_frame: Any, kind: str, _argument: Any) -> None:
        calls[0] += kind in {"call", "c_call"}

    earlier = sys.getprofile()
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(earlier)


def test_a_message_in_a_window_is_small() -> None:
    """The other processes keep nothing of a queued job: it waits in the database."""
    bodies = [message(number) for number in range(1000)]

    tracemalloc.start()
    try:
        held = [decode(body) for body in bodies]
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert isinstance(held[0], JobEnvelope)
    assert size / len(held) <= BYTES_PER_MESSAGE


def message(number: int) -> dict[str, Any]:
    return {
        "job": {
            "schema": 1,
            "id": f"job_{number:022}",
            "generation": 0,
            "model": "default",
            "service_class": "standard",
            "tenant": "tenant_0352r17b4bilrvyOf3FWUt",
            "priority": 5,
            "cost": 300 + number,
            "arrived": 1_900_000_000.0 + number,
            "prefix": f"prefix-{number % 7}",
            "prefix_tokens": 200,
        }
    }
