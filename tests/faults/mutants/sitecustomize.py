"""Takes one guarantee out of every process that is started with this folder on PYTHONPATH.

`FAULTS_MUTANT` names it. Only the harness sets it; a harness that does not notice proves nothing.
"""

import os
import traceback
from collections.abc import Sequence
from typing import Any


def without_fence() -> None:
    """Whoever finishes last is believed."""
    from sqlalchemy import tuple_, update
    from sqlalchemy.dialects.postgresql import insert

    from models.dialect import Now
    from models.repositories import execution

    async def settle(connection: Any, endings: Sequence[Any]) -> dict[Any, Any]:
        settled = {}
        for ending in sorted(endings, key=lambda e: e.job_id):
            moved = await connection.execute(
                update(execution._jobs)
                .where(execution._jobs.c.id == ending.job_id)
                .values(status=ending.status.value, version=execution._jobs.c.version + 1, finished_at=Now())
                .returning(execution._jobs.c.version, execution._jobs.c.finished_at)
            )
            row = execution._result_row(ending)
            statement = insert(execution._results).values(row)
            await connection.execute(statement.on_conflict_do_update(index_elements=["job_id"], set_=row))
            await connection.execute(
                execution._leases.delete().where(
                    tuple_(execution._leases.c.job_id, execution._leases.c.attempt).in_(
                        [(ending.job_id, ending.attempt)]
                    )
                )
            )
            version = moved.one()
            settled[ending.job_id, ending.attempt] = (version.version, version.finished_at)
        return settled

    execution.settle = settle  # type: ignore[assignment]


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

    def acknowledge_first(self: Any, request: Any) -> Any:
        request.acknowledge()
        return receive(self, request)

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
