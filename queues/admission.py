"""The door: asks the policy, then those who answer without a GPU, and refuses what would wait in vain."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from core.clock import Clock
from core.errors import QueueFull
from core.overload_settings import OverloadSettings
from models.catalogue import Catalogue, ServedModel
from models.degradation import Degradation, Level
from models.repositories.submission import NewJob
from models.service_class import ServiceClass
from queues.answerers import Answerer, Question, first_answer
from queues.policy.admission import Demand, predicted_wait, refuse, truncate
from queues.policy.state import Verdict
from queues.pressure_board import PressureBoard


@dataclass(frozen=True, slots=True)
class Admitted:
    """The job as it enters. `position` counts those of its class before it; None where nobody knows."""

    job: NewJob
    position: int | None = None


class Admission:
    """Asked once for each job, after every check and before it is written down."""

    def __init__(
        self,
        board: PressureBoard,
        answerers: Sequence[Answerer],
        catalogue: Catalogue,
        clock: Clock,
        *,
        policy: OverloadSettings,
        keep: timedelta,
    ) -> None:
        self._board = board
        self._answerers = answerers
        self._catalogue = catalogue
        self._clock = clock
        self._policy = policy
        self._keep = keep

    async def admit(self, job: NewJob) -> Admitted:
        """Answered, shortened, moved to another model, or as it is.

        Raises `QueueTimeout`, `DeadlineUnreachable` or `QueueFull`, with the seconds to come again in.
        """
        verdict = self._board.verdict(job.model) if self._policy.enabled else None
        state = verdict.state if verdict is not None else None
        if self._policy.enabled and job.service_class != ServiceClass.BULK:
            self._board.note_offered(job.model, job.cost)
        question = Question.of_new(
            job,
            level=state.level if state else Level.FULL,
            reason=state.reason if state else "",
            keep=self._keep,
        )
        answer = await first_answer(self._answerers, question)
        if answer is not None:
            return Admitted(replace(job, answer=answer, degradation=answer.degradation))
        return self._queue(job)

    def _queue(self, job: NewJob) -> Admitted:
        if not self._policy.enabled:
            return Admitted(self._estimated(job, self._board.verdict(job.model)))
        job = self._backed(job)
        try:
            admitted = self._fitting(job)
        except QueueFull:
            lighter = self._served_by(job, self._catalogue.get(job.model).fallback, name="fallback")
            if lighter is None:
                raise
            admitted = self._fitting(lighter)
        job = admitted.job
        self._board.note_admitted(job.model, job.service_class, job.cost)
        return admitted

    def _fitting(self, job: NewJob) -> Admitted:
        verdict = self._board.verdict(job.model)
        refusal = refuse(verdict, self._demand(job)) if not self._is_scheduled(job) else None
        if refusal is not None:
            raise refusal
        job = self._shortened(job, verdict)
        return Admitted(self._estimated(job, verdict), self._position(job, verdict))

    def _shortened(self, job: NewJob, verdict: Verdict | None) -> NewJob:
        if job.degradation is not None:  # another model serves: one step down is enough
            return job
        asked = job.request["max_tokens"]
        cut = truncate(
            verdict,
            job.terms,
            service_class=job.service_class,
            asked=asked,
            thinks=self._thinks(job),
            policy=self._policy,
        )
        if cut is None or cut.max_tokens is None:
            return job
        return replace(job, degradation=cut, cost=job.cost - asked + cut.max_tokens)

    def _thinks(self, job: NewJob) -> bool:
        return self._catalogue.get(job.model).reasoning and job.request.get("reasoning") is not False

    def _backed(self, job: NewJob) -> NewJob:
        """A premium job whose model nobody runs goes to the backup, where somebody does."""
        if job.service_class != ServiceClass.PREMIUM or self._is_served(job.model) is not False:
            return job
        model = self._catalogue.get(job.model)
        moved = self._served_by(job, model.backup, name="backup")
        return moved if moved is not None and self._is_served(moved.model) else job

    def _is_served(self, model: str) -> bool | None:
        verdict = self._board.verdict(model)
        return None if verdict is None or verdict.pressure.is_stale else verdict.pressure.slots > 0

    def _served_by(self, job: NewJob, other: str | None, *, name: str) -> NewJob | None:
        """The job as another model's, labelled; None where there is none, it is too small, or is refused."""
        if other is None or not job.terms.allows(Level.TRUNCATE) or job.degradation is not None:
            return None
        model = self._catalogue.get(other)
        if not _fits(job, model):
            return None
        reason = f"{job.model} could not serve in time; {other} does"
        label = Degradation(Level.TRUNCATE, name, reason, asked_model=job.model)
        return replace(job, model=other, degradation=label)

    def _demand(self, job: NewJob) -> Demand:
        _, ahead = self._board.ahead(job.model, job.service_class)
        return Demand(job.service_class, self._clock.now(), job.queue_deadline, job.deadline, ahead)

    def _estimated(self, job: NewJob, verdict: Verdict | None) -> NewJob:
        wait = predicted_wait(verdict, self._demand(job))
        if wait is None or self._is_scheduled(job):
            return job
        starts: datetime = self._clock.now() + timedelta(seconds=wait)
        return replace(job, estimated_start_at=starts)

    def _position(self, job: NewJob, verdict: Verdict | None) -> int | None:
        reading = verdict.pressure.classes.get(job.service_class) if verdict else None
        jobs, _ = self._board.ahead(job.model, job.service_class)
        return reading.jobs + jobs if reading is not None else None

    def _is_scheduled(self, job: NewJob) -> bool:
        return job.not_before is not None and job.not_before > self._clock.now()


def _fits(job: NewJob, model: ServedModel) -> bool:
    # The prompt was measured with another tokenizer; what is too close is left where it is.
    return model.context_length is not None and job.cost <= 0.8 * model.context_length
