"""The policy as it is asked at dispatch: a job that was admitted whole may be cut short now."""

from dataclasses import replace

from core.overload_settings import OverloadSettings
from models.catalogue import ServedModel
from models.degradation import terms
from models.repositories.execution import Claim
from models.views import JobView
from queues.policy.admission import truncate
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

    def note_ended(self, view: JobView) -> None:
        timings = view.timings or {}
        if "first_token_ms" in timings:
            self._board.note_first_token(view.model, timings["queue_ms"] + timings["first_token_ms"])
