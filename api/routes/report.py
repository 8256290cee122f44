"""What the last while was like, for operators."""

import asyncio
from datetime import timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from api import openapi
from api.dependencies import AdminCaller, Parts, parts_of
from api.job_answers import json_answer
from core.errors import InvalidField
from core.setting_types import parse_duration
from models.repositories import degradation, fleet, outcomes
from queues.report import LevelChange, Period, summarise

router = APIRouter(tags=["operation"], default_response_class=Response)

_JOBS: Final = 50_000  # of the newest
_LONGEST: Final = timedelta(days=7)
_ALIVE: Final = timedelta(seconds=10)
Window = Annotated[
    str, Query(pattern=r"^[1-9][0-9]{0,4}[mhd]$", description="How far back: 15m, 1h, 7d at the most.")
]


@router.get(
    "/v1/admin/report",
    summary="Outcomes, waits, tokens, levels and cost of what was submitted lately",
    operation_id="read_report",
    responses={200: openapi.answer("The report.", "ReportRead"), **openapi.problems(422)},
)
async def read_report(request: Request, _: AdminCaller, window: Window = "1h") -> Response:
    lasts = parse_duration(window)
    if not isinstance(lasts, timedelta) or lasts > _LONGEST:
        raise InvalidField("window", "Must be at most 7d: older jobs are deleted.")
    parts = parts_of(request)
    async with parts.database.read() as connection:
        period = await _period(parts, connection, lasts)
    # Sorting 50,000 jobs takes long enough for other requests to notice.
    return json_answer(await asyncio.to_thread(summarise, period))


async def _period(parts: Parts, connection: AsyncConnection, lasts: timedelta) -> Period:
    until = parts.clock.now()
    since = until - lasts
    jobs, is_partial = await outcomes.submitted_since(connection, since, limit=_JOBS)
    alive = max(_ALIVE, 3 * parts.settings.worker.heartbeat)
    verdicts = {name: parts.board.verdict(name) for name in parts.catalogue.names}
    return Period(
        since=since,
        until=until,
        jobs=jobs,
        is_partial=is_partial,
        changes=[
            LevelChange(one.model, one.at, one.before, one.after)
            for one in await degradation.changes_since(connection, since)
            if one.at is not None and one.before != one.after
        ],
        levels={name: verdict.state.level if verdict else 0 for name, verdict in verdicts.items()},
        shifts=await fleet.shifts(connection, since, alive_within=alive),
        prices={model.name: model.gpus * model.gpu_hour_price for model in parts.catalogue.models},
    )
