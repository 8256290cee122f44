"""What was used: sums per day, tenant, key, model and class, written in the transaction that ends a job."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Any, Final

from sqlalchemy import Executable, Row, Table, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from models.degradation import level_of
from models.dialect import insert_in
from models.tables import Usage

_usage: Final[Table] = Usage.__table__  # type: ignore[assignment]

_KEY: Final = ("tenant_id", "day", "key_id", "model", "service_class")
_SUMS: Final = ("jobs", "degraded", "prompt_tokens", "cached_tokens", "completion_tokens")
GROUPS: Final = {"day": "day", "key": "key_id", "model": "model", "class": "service_class"}


async def account(
    connection: AsyncConnection, results: Mapping[str, Mapping[str, Any]], jobs: Sequence[Row[Any]]
) -> None:
    """Adds the finished jobs to the sums of their day: one statement for all of them.

    `results` are rows of the table by job id, `jobs` the rows of those jobs. A job that used nothing (it
    expired, or was cancelled while it waited) is not counted.
    """
    sums: defaultdict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0] * len(_SUMS))
    for job in jobs:
        result = results[job.id]
        if result.get("usage") or result.get("output"):
            key = (job.tenant_id, job.finished_at.date(), job.key_id or "", job.model, job.service_class)
            sums[key] = [a + b for a, b in zip(sums[key], _amounts(result), strict=True)]
    await _add(connection, sums)


def _amounts(row: Mapping[str, Any]) -> list[int]:
    used = row.get("usage") or {}
    cached = (used.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    return [
        1,
        1 if level_of(row.get("degradation")) else 0,
        used.get("prompt_tokens", 0),
        cached,
        used.get("completion_tokens", 0),
    ]


async def _add(connection: AsyncConnection, sums: Mapping[tuple[Any, ...], Sequence[int]]) -> None:
    # One order of locks for all, or two groups that share two rows deadlock.
    rows = [
        {**dict(zip(_KEY, key, strict=True)), **dict(zip(_SUMS, amounts, strict=True))}
        for key, amounts in sorted(sums.items())
    ]
    if not rows:
        return
    await connection.execute(_adding(connection.dialect.name), rows)


@cache
def _adding(dialect: str) -> Executable:
    """Made once, and for one row: for as many as there are sums it would be another each time."""
    statement = insert_in(dialect, _usage)
    return statement.on_conflict_do_update(
        index_elements=list(_KEY),
        set_={name: _usage.c[name] + statement.excluded[name] for name in _SUMS},
    )


async def tokens_by_key(connection: AsyncConnection, tenant_id: str, day: date) -> dict[str, int]:
    """Tokens of one day, by key."""
    tokens = func.sum(_usage.c.prompt_tokens + _usage.c.completion_tokens)
    rows = await connection.execute(
        select(_usage.c.key_id, tokens)
        .where(_usage.c.tenant_id == tenant_id, _usage.c.day == day)
        .group_by(_usage.c.key_id)
    )
    return {key_id: int(used) for key_id, used in rows}


@dataclass(frozen=True, slots=True)
class UsageRow:
    """Sums of one group: of a day, a key, a model or a class."""

    group: str
    jobs: int
    degraded: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


async def report(
    connection: AsyncConnection, tenant_id: str, *, since: date, until: date, group_by: str
) -> list[UsageRow]:
    """The tenant's sums from `since` to `until`, both included, in the order of their groups."""
    group = _usage.c[GROUPS[group_by]]
    rows = await connection.execute(
        select(group, *(func.sum(_usage.c[name]) for name in _SUMS))
        .where(_usage.c.tenant_id == tenant_id, _usage.c.day >= since, _usage.c.day <= until)
        .group_by(group)
        .order_by(group)
    )
    return [UsageRow(str(name), *(int(amount) for amount in amounts)) for name, *amounts in rows]


async def forget(connection: AsyncConnection, *, before: date) -> None:
    await connection.execute(delete(_usage).where(_usage.c.day < before))


def days(since: date, until: date) -> int:
    return (until - since) // timedelta(days=1) + 1
