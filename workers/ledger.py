"""What a worker writes down: claims, endings and heartbeats, each in groups."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from core import metrics
from core.errors import StoreUnavailable
from core.logs import get_logger
from models.dialect import Database
from models.group_commit import GroupCommit
from models.repositories import execution, fleet, holds, jobs, outbox
from models.repositories.execution import Claim, Ending, HeldLease
from queues.relay import BELL
from workers.runner import GiveBack

logger = get_logger(__name__)

_GROUP: Final = 256

Settled = tuple[int, datetime]
Return = tuple[str, int, GiveBack]  # job id, attempt, why


class Ledger:
    """The only way from a worker to the database. Every method may raise `StoreUnavailable`."""

    def __init__(self, database: Database, *, worker: str, lease: timedelta) -> None:
        self._database = database
        self.worker = worker
        self._lease = lease
        self._endings: GroupCommit[Ending, Settled | None] = GroupCommit(
            self._settle, limit=_GROUP, retry_alone=_is_a_row
        )
        self._returns: GroupCommit[Return, bool] = GroupCommit(self._give_back, limit=_GROUP)

    async def claim(self, wanted: Sequence[tuple[str, int]]) -> list[Claim]:
        """See `execution.claim`: what is missing from the answer is not ours to run."""
        async with self._database.at_once() as connection:
            return await execution.claim(connection, wanted, worker=self.worker, lease=self._lease)

    async def ask_for_more(self) -> None:
        """Tells the relay that there is room."""
        await self._database.wakeups.ring(BELL)

    async def offer_again(self, waiting: Sequence[tuple[str, int]]) -> int:
        """Released `(job id, generation)` pairs that nobody claimed are released once more."""
        async with self._database.begin() as connection:
            offered = await outbox.release_again(connection, waiting, after=timedelta())
        await self._database.wakeups.ring(BELL)
        return offered

    async def settle(self, ending: Ending) -> Settled | None:
        """The job's new version and the time it ended; None when another attempt owns the job."""
        return await self._endings.submit(ending)

    async def give_back(self, job_id: str, attempt: int, why: GiveBack) -> bool:
        """The job waits again; False when it is not ours any more."""
        return await self._returns.submit((job_id, attempt, why))

    async def cancel(self, tenant_id: str, job_id: str, *, keep: timedelta) -> None:
        async with self._database.begin() as connection:
            await jobs.cancel(connection, tenant_id, job_id, expires_at=datetime.now(UTC) + keep)

    async def heartbeat(
        self,
        *,
        slots: dict[str, int],
        held: dict[str, int],
        state: str,
        detail: str,
        stats: dict[str, Any] | None = None,
    ) -> None:
        async with self._database.begin() as connection:
            await fleet.report(
                self._database,
                connection,
                name=self.worker,
                slots=slots,
                held=held,
                state=state,
                detail=detail,
                stats=stats,
            )

    async def extend(self, job_ids: Sequence[str]) -> list[HeldLease]:
        async with self._database.begin() as connection:
            return await execution.extend_leases(connection, job_ids, worker=self.worker, lease=self._lease)

    async def held_models(self) -> frozenset[str]:
        """Models of which nothing new may begin."""
        async with self._database.read() as connection:
            return await holds.held(connection)

    async def sign_off(self) -> None:
        async with self._database.begin() as connection:
            await fleet.sign_off(connection, self.worker)

    async def _settle(self, endings: Sequence[Ending]) -> list[Settled | None]:
        async with self._database.begin() as connection:
            settled = await execution.settle(connection, endings)
        metrics.SETTLE_GROUP.observe(len(endings))
        return [settled.get((ending.job_id, ending.attempt)) for ending in endings]

    async def _give_back(self, returns: Sequence[Return]) -> list[bool]:
        reasons: defaultdict[GiveBack, list[tuple[str, int]]] = defaultdict(list)
        for job_id, attempt, why in returns:
            reasons[why].append((job_id, attempt))
        returned: set[str] = set()
        async with self._database.begin() as connection:
            for why, attempts in reasons.items():
                returned.update(
                    await execution.give_back(
                        self._database,
                        connection,
                        attempts,
                        excused=why.excused,
                        struck=why.struck,
                        reason=why.reason,
                    )
                )
        await self._database.wakeups.ring(BELL)
        return [job_id in returned for job_id, _, _ in returns]


def _is_a_row(error: Exception) -> bool:
    """One row may be at fault; a lost database is nobody's."""
    return not isinstance(error, StoreUnavailable)
