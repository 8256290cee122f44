"""Takes one guarantee out of every process that is started with this folder on PYTHONPATH.

`FAULTS_MUTANT` names it. Only the harness sets it; a harness that does not notice proves nothing.
"""

import os
import traceback
from collections.abc import Sequence
from typing import Any


def without_fence() -> None:
    """Whoever finishes last is believed."""
    from sqlalchemy import update

    from models.dialect import Now
    from models.repositories import execution, results

    jobs, record = execution._jobs, execution.record_results

    async def move(connection: Any, status: Any, rows: Sequence[dict[str, Any]]) -> dict[Any, Any]:
        settled = {}
        for row in rows:
            moved = await connection.execute(
                update(jobs)
                .where(jobs.c.id == row["job_id"])
                .values(status=status.value, version=jobs.c.version + 1, finished_at=Now())
                .returning(jobs.c.version, jobs.c.finished_at)
            )
            settled[row["job_id"], row["attempt"]] = tuple(moved.one())
        return settled

    async def replace(connection: Any, rows: Sequence[dict[str, Any]]) -> None:
        ids = [row["job_id"] for row in rows]
        await connection.execute(results._results.delete().where(results._results.c.job_id.in_(ids)))
        await record(connection, rows)

    # Statement by statement, as on a database that cannot do all in one.
    execution._settle_at_once = execution._settle_step_by_step  # type: ignore[assignment]
    execution._move = move  # type: ignore[assignment]
    execution.record_results = replace  # type: ignore[attr-defined]


def without_reaper() -> None:
    from queues.upkeep import Upkeep

    async def reap(_self: Any) -> int:
        return 0

    Upkeep.reap = reap  # type: ignore[method-assign]


def without_outbox() -> None:
    """What was released is forgotten: the broker alone remembers it."""
    from models.repositories import outbox

    async def mark_released(connection: Any, rows: Sequence[tuple[str, int]]) -> None:
        await outbox.remove(connection, [job_id for job_id, _ in rows])

    outbox.mark_released = mark_released  # type: ignore[assignment]


def without_late_acknowledgement() -> None:
    """A message is acknowledged when it arrives."""
    from workers.pool import AsyncioPool

    receive = AsyncioPool._receive

    def acknowledge_first(self: Any, request: Any, *arguments: Any) -> Any:
        request.acknowledge()
        return receive(self, request, *arguments)

    AsyncioPool._receive = acknowledge_first  # type: ignore[method-assign]


_MUTANTS = {
    "fence": without_fence,
    "reaper": without_reaper,
    "outbox": without_outbox,
    "late acknowledgement": without_late_acknowledgement,
}

if os.environ.get("FAULTS_MUTANT"):
    try:
        _MUTANTS[os.environ["FAULTS_MUTANT"]]()
    except BaseException:  # noqa: BLE001 - whatever it is
        # Python would report it and start the process all the same, with every guarantee in place.
        traceback.print_exc()
        os._exit(70)
