"""The policy as it is asked at dispatch: a job that was admitted whole may get less, or its answer, now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from core.logs import get_logger
from core.overload_settings import OverloadSettings
from models.catalogue import ServedModel
from models.degradation import Level, terms
from models.repositories.execution import Claim
from models.repositories.submission import ReadyAnswer
from models.service_class import ServiceClass
from models.views import JobView
from queues.answerers import Answerer, Question, first_answer
from queues.policy.admission import truncate
from queues.policy.pressure import JUDGED
from queues.policy.state import State
from queues.pressure_board import PressureBoard

logger = get_logger(__name__)

# What the claim may still change: nothing that was taken from the job yet, or its length alone.
_OPEN: Final = frozenset({Level.FULL.label, Level.TRUNCATE.label})


_KNOWN_AFTER: Final = 2.0  # seconds after which every process admits by a new level


@dataclass(frozen=True, slots=True)
class Ruling:
    """What becomes of a claim: it is run as it stands here, unless there is an answer already."""

    claim: Claim
    answer: ReadyAnswer | None = None


class DispatchPolicy:
    """One model's, in one worker. It also counts what starts, for those who measure the pressure."""

    def __init__(
        self,
        board: PressureBoard,
        model: ServedModel,
        policy: OverloadSettings,
        *,
        answerers: Sequence[Answerer] = (),
        keep: timedelta = timedelta(days=7),
    ) -> None:
        self._board = board
        self._model = model
        self._policy = policy
        self._answerers = answerers
        self._keep = keep

    async def ask(self, claim: Claim) -> Ruling:
        """Who waited while the level rose gets what would be given to one that comes now."""
        job = claim.view
        # At what it waited for, cut short or not: the rate says how fast the queue is eaten.
        self._board.note_started(job.model, job.service_class, claim.cost)
        verdict = self._board.verdict(job.model) if self._policy.enabled else None
        if verdict is None or verdict.state.level is Level.FULL:
            return Ruling(claim)
        answer = await self._answer(claim, verdict.state)
        if answer is not None:
            label = answer.degradation.document() if answer.degradation else None
            return Ruling(replace(claim, view=replace(job, degradation=label)), answer)
        return Ruling(self._shortened(claim))

    def most(self, *, slots: int, bulk: int) -> dict[str, int]:
        """How many more of a class may begin beside the `bulk` that runs; not named: any number.

        Bulk is answered whole and not interrupted: under pressure its long answers in every slot would keep
        the short ones of the others waiting for a slot.
        """
        verdict = self._board.verdict(self._model.name)
        if not self._policy.enabled or verdict is None or verdict.state.level is Level.FULL:
            return {}
        return {ServiceClass.BULK: max(0, max(1, int(slots * self._policy.bulk_share)) - bulk)}

    def note_ended(self, view: JobView) -> None:
        timings = view.timings or {}
        # Bulk waits by its nature: its first tokens say nothing about overload.
        if view.service_class in JUDGED and "first_token_ms" in timings:
            self._board.note_first_token(view.model, timings["queue_ms"] + timings["first_token_ms"])

    async def _answer(self, claim: Claim, state: State) -> ReadyAnswer | None:
        """None where nobody has one, or the job waits for an engine whatever the level."""
        job = claim.view
        if job.attempt > 1 or _name(job.degradation) not in _OPEN:
            return None
        # Who came when this level held already was asked about it then.
        if job.created_at.timestamp() > state.since + _KNOWN_AFTER:
            return None
        try:
            return await first_answer(self._answerers, self._question(claim, state))
        except Exception:
            # The claim is committed: whatever breaks here, the job must reach the engine.
            logger.exception("answerers_failed", job=job.id)
            return None

    def _question(self, claim: Claim, state: State) -> Question:
        job = claim.view
        return Question(
            tenant_id=job.tenant_id,
            model=job.model,
            request=claim.request,
            metadata=job.metadata,
            level=state.level,
            reason=state.reason,
            terms=terms(claim.request, service_class=job.service_class, batch_id=job.batch_id),
            expires_at=datetime.now(UTC) + (claim.result_ttl or self._keep),
            wants_its_own=job.retry_of is not None
            or job.batch_id is not None
            or job.follow_up_of is not None,
        )

    def _shortened(self, claim: Claim) -> Claim:
        job, request = claim.view, claim.request
        if job.degradation is not None:
            return claim
        asked = request.get("max_tokens") or 0
        cut = truncate(
            self._board.verdict(job.model),
            terms(request, service_class=job.service_class, batch_id=job.batch_id),
            service_class=job.service_class,
            asked=asked,
            thinks=self._model.reasoning and request.get("reasoning") is not False,
            policy=self._policy,
        )
        if cut is None or cut.max_tokens is None:
            return claim
        cost = max(1, claim.cost - asked + cut.max_tokens)
        return replace(claim, view=replace(job, degradation=cut.document()), cost=cost)


def _name(kept: Mapping[str, Any] | None) -> str:
    return Level.FULL.label if kept is None else str(kept.get("name"))
