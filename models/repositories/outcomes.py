"""What became of the jobs of the last while, row by row: for reports. Never what was asked or answered."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from core.ids import first_id
from models.tables import Job, Result, Tenant

_jobs: Final[Table] = Job.__table__  # type: ignore[assignment]
_results: Final[Table] = Result.__table__  # type: ignore[assignment]
_tenants: Final[Table] = Tenant.__table__  # type: ignore[assignment]

# A chunk is decoded in one go, and holds up whoever shares the loop for about 10 ms.
_CHUNK: Final = 1000


@dataclass(frozen=True, slots=True)
class Outcome:
    """`status` is where the job stands; what has not happened yet is None."""

    id: str
    tenant: str
    model: str
    service_class: str
    status: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    usage: dict[str, Any] | None
    error: dict[str, Any] | None
    degradation: dict[str, Any] | None


async def submitted_since(
    connection: AsyncConnection, since: datetime, *, limit: int
) -> tuple[list[Outcome], bool]:
    """The newest first, and whether there were more than `limit`."""
    found: list[Outcome] = []
    oldest, last = first_id("job", since), ""
    while len(found) <= limit:
        statement = _outcomes().where(_jobs.c.id >= oldest)
        if last:
            statement = statement.where(_jobs.c.id < last)
        rows = (await connection.execute(statement.order_by(_jobs.c.id.desc()).limit(_CHUNK))).all()
        found += [Outcome(*row) for row in rows]
        if len(rows) < _CHUNK:
            break
        last = found[-1].id
    return found[:limit], len(found) > limit


def _outcomes() -> Any:
    joined = _jobs.join(_tenants, _tenants.c.id == _jobs.c.tenant_id).outerjoin(
        _results, _results.c.job_id == _jobs.c.id
    )
    return select(
        _jobs.c.id,
        _tenants.c.name,
        _jobs.c.model,
        _jobs.c.service_class,
        _jobs.c.status,
        _jobs.c.created_at,
        _jobs.c.started_at,
        _jobs.c.finished_at,
        _results.c.usage,
        _results.c.error,
        func.coalesce(_results.c.degradation, _jobs.c.degradation, type_=_jobs.c.degradation.type),
    ).select_from(joined)
