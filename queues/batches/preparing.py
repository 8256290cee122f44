"""From a batch's file to its lines in the queue: checked whole, then loaded in chunks, each once."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from core import metrics
from core.errors import NotFound
from core.ids import numbered_id
from core.logs import get_logger
from core.settings import Settings
from models.catalogue import Catalogue
from models.dialect import Database, Now, ring_after_commit
from models.limits import NO_LIMITS, Complexity
from models.repositories import access, batches, submission
from models.repositories.batches import BatchRow
from models.repositories.outbox import BELL
from models.repositories.submission import NewJob
from models.service_class import ServiceClass
from queues.batches.checking import Check, Report, run_check
from queues.batches.ending import tell_end
from queues.batches.hold import Hold
from queues.batches.lines import Problem
from queues.batches.spool import Spool, work_folder
from queues.requests.batch_request import window_of
from queues.storage import Storage

logger = get_logger(__name__)

_INPUT: Final = "input.jsonl"
_ONLY: Final = "errors.jsonl"
_NEWS: Final = 2000  # lines that change what the database knows of its tables; then twice as many, and so on


class Preparation:
    """Safe to begin again after a crash: a check changes nothing, and each chunk says how far it went."""

    def __init__(
        self, database: Database, storage: Storage, settings: Settings, catalogue: Catalogue
    ) -> None:
        self._database = database
        self._storage = storage
        self._settings = settings
        self._catalogue = catalogue

    async def prepare(self, hold: Hold) -> None:
        """Nothing is queued until every line has passed. Raises `BatchTaken`."""
        with work_folder() as name:
            report = await self._checked(hold.batch, Path(name))
            if hold.status != "validating":
                if report.problems:  # the catalogue changed under a batch that was half loaded
                    await self._give_up(hold, report)
                    return
            elif not await self._pass(hold, report):
                return
            await self._load(hold, Spool(Path(name)))

    async def _checked(self, batch: BatchRow, folder: Path) -> Report:
        try:
            await self._storage.save(batch.input_file_id, folder / _INPUT)
            only = await self._fetch_errors(batch, folder / _ONLY)
        except NotFound as error:
            report = Report()
            report.note(Problem("file_not_found", f"{error} Upload it again.", "input_file_id"))
            return report
        check = Check(
            file=folder / _INPUT,
            folder=folder,
            endpoint=batch.endpoint,
            catalogue=self._catalogue,
            complexity=self._settings.complexity,
            service_class=ServiceClass(batch.service_class),
            ceiling=await self._ceiling(batch),
            degradation=batch.degradation,
            longest_line=self._settings.batches.longest_line,
            most_lines=self._settings.batches.most_lines,
            shared_prefix=self._settings.order.max_shared_prefix_tokens,
            only=only,
        )
        return await run_check(check)

    async def _fetch_errors(self, batch: BatchRow, path: Path) -> Path | None:
        """Those of the batch that this one repeats."""
        if batch.retry_of is None:
            return None
        async with self._database.read() as connection:
            earlier = await batches.read(connection, batch.tenant_id, batch.retry_of)
        if earlier is None or earlier.error_file_id is None:
            raise NotFound("The error file of the batch before is gone.")
        await self._storage.save(earlier.error_file_id, path)
        return path

    async def _ceiling(self, batch: BatchRow) -> Complexity:
        async with self._database.read() as connection:
            found = await access.limits(connection, [batch.tenant_id, batch.key_id or ""])
        given = [
            found.get(owner, NO_LIMITS).max_complexity for owner in (batch.tenant_id, batch.key_id or "")
        ]
        return min((one for one in given if one), key=lambda one: one.rank, default=Complexity.HIGH)

    async def _pass(self, hold: Hold, report: Report) -> bool:
        """The batch is in progress; False where it failed."""
        async with self._database.begin() as connection:
            if not report.problems:
                await self._note_room(await batches.open_lines(connection, hold.batch.tenant_id), report)
            if report.problems:
                await hold.move(connection, status="failed", problems=report.problems, finished_at=Now())
                await tell_end(connection, hold.batch, "failed", keep=self._settings.upkeep.retention)
                metrics.BATCHES.labels("failed").inc()
                logger.info("batch_failed", batch_id=hold.batch.id, bad_lines=report.bad)
                return False
            values: dict[str, Any] = {"total": report.total, "models": report.models}
            await hold.move(connection, status="in_progress", in_progress_at=Now(), **values)
        logger.info("batch_checked", batch_id=hold.batch.id, lines=report.total)
        return True

    async def _note_room(self, others: int, report: Report) -> None:
        most = self._settings.batches.open_lines
        if most and others + report.total > most:
            said = f"The unfinished batches of this tenant have {others} lines, and may have {most} together:"
            report.note(Problem("too_many_lines", f"{said} wait for one to end, or cancel one."))

    async def _give_up(self, hold: Hold, report: Report) -> None:
        async with self._database.begin() as connection:
            await hold.move(connection, status="cancelling", cancelling_at=Now(), problems=report.problems)

    async def _load(self, hold: Hold, spool: Spool) -> None:
        batch, chunk = hold.batch, self._settings.batches.chunk
        keep = window_of(batch.window) + self._settings.upkeep.retention
        known = batch.loaded
        for start in range(batch.loaded, len(spool), chunk):
            rows = spool.rows(start, chunk)
            jobs = [_job(batch, start + place, row, keep) for place, row in enumerate(rows)]
            async with self._database.begin() as connection:
                await hold.move(connection, loaded=start + len(rows))
                await submission.insert_jobs(connection, jobs)
                ring_after_commit(connection, BELL)
            _count(jobs)
            if start + len(rows) - known >= max(known, _NEWS):
                known = start + len(rows)
                async with self._database.begin() as connection:
                    await submission.refresh_statistics(connection)


def _job(batch: BatchRow, place: int, row: dict[str, Any], keep: timedelta) -> NewJob:
    """All are of one instant and their ids rise by place: so they are released in the order of the spool."""
    return NewJob(
        id=numbered_id("job", batch.id, place),
        tenant_id=batch.tenant_id,
        model=row["model"],
        service_class=row["service_class"],
        priority=row["priority"],
        cost=row["cost"],
        fingerprint="",  # nobody's repeated request means a line
        request=row["request"],
        created_at=batch.created_at,
        prefix=row["prefix"],
        prefix_tokens=row["prefix_tokens"],
        trail=row.get("trail"),  # a spool that an older version wrote has none
        result_ttl=keep,  # its result is read once more when the last line has ended
        batch_id=batch.id,
        batch_line=row["number"],
        custom_id=row["custom_id"],
        metadata=row["metadata"],
        tags=tuple(row["tags"]),
        key_id=batch.key_id,
    )


def _count(jobs: list[NewJob]) -> None:
    tokens: Counter[tuple[str, str]] = Counter()
    for job in jobs:
        tokens[job.model, job.service_class] += job.cost
    for kind, count in Counter((job.model, job.service_class) for job in jobs).items():
        metrics.ACCEPTED.labels(*kind).inc(count)
        metrics.TOKENS_ACCEPTED.labels(*kind).inc(tokens[kind])
