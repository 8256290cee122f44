"""The policy as it is asked at dispatch: a job that was admitted whole may be cut short now."""

from dataclasses import replace

from core.overload_settings import OverloadSettings
from models.catalogue import ServedModel
from models.degradation import Level, terms
from models.repositories.execution import Claim
from models.service_class import ServiceClass
from models.views import JobView
from queues.policy.admission import truncate
from queues.policy.pressure import JUDGED
from queues.pressure_board import PressureBoard


class DispatchPolicy:
    """One model's, in one worker. It also counts what starts, for those who measure the pressure."""

    def __init__(self, board: PressureBoard, model: ServedModel, policy: OverloadSettings) -> None:
        self._board = board
        self._model = model
        self._policy = policy

    def ask(self, claim: Claim) -> Claim:
        """The claim as it is run: with the label of a truncated answer where the level says so now."""
        job, request = claim.view, claim.request
        # At what it waited for, cut short or not: the rate says how fast the queue is eaten.
        self._board.note_started(job.model, job.service_class, claim.cost)
        asked = request.get("max_tokens") or 0
        if job.degradation is None:
            cut = truncate(
                self._board.verdict(job.model),
                terms(request, service_class=job.service_class, batch_id=job.batch_id),
                service_class=job.service_class,
                asked=asked,
                thinks=self._model.reasoning and request.get("reasoning") is not False,
                policy=self._policy,
            )
            if cut is not None and cut.max_tokens is not None:
                cost = max(1, claim.cost - asked + cut.max_tokens)
                claim = replace(claim, view=replace(job, degradation=cut.document()), cost=cost)
        return claim

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
