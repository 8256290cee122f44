"""Answers that need no GPU: who is asked, in which order, and from which level on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, Self

from core.errors import PenstockError
from core.logs import get_logger
from models.degradation import Level, Terms
from models.repositories.submission import NewJob, ReadyAnswer
from queues.redis import REDIS_DOWN

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, the level that holds for its model, why, and what its caller accepts.

    `wants_its_own`: a retry, or a line of a batch, to which another one's answer is none.
    """

    tenant_id: str
    model: str
    request: Mapping[str, Any]
    metadata: Mapping[str, Any]
    level: Level
    reason: str
    terms: Terms
    expires_at: datetime  # of an answer
    wants_its_own: bool = False

    @classmethod
    def of_new(cls, job: NewJob, *, level: Level, reason: str, keep: timedelta) -> Self:
        """Of a checked job that was not written down yet."""
        return cls(
            tenant_id=job.tenant_id,
            model=job.model,
            request=job.request,
            metadata=job.metadata,
            level=level,
            reason=reason,
            terms=job.terms,
            expires_at=job.created_at + (job.result_ttl or keep),
            wants_its_own=job.retry_of is not None or job.batch_id is not None,
        )

    def answer(self, text: str, **rest: object) -> ReadyAnswer:
        """A finished text as an answer: no tokens were made for it, so none are accounted."""
        usage = {
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "total_tokens": 0,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        output = {"text": text, "reasoning": None, "finish_reason": "stop", **rest}
        return ReadyAnswer(output=output, usage=usage, expires_at=self.expires_at)


class Answerer(Protocol):
    """`level` is the first at which it is asked; one of `FULL` is always asked, and never refused."""

    @property
    def level(self) -> Level: ...

    async def answer(self, question: Question) -> ReadyAnswer | None:
        """None: it has no answer to this, and the next one is asked."""


async def first_answer(answerers: Sequence[Answerer], question: Question) -> ReadyAnswer | None:
    """The first that has an answer and is allowed. One that is broken has none."""
    for answerer in answerers:
        if answerer.level > question.level:
            continue
        if answerer.level is not Level.FULL and not question.terms.allows(answerer.level):
            continue
        try:
            answer = await answerer.answer(question)
        except (PenstockError, *REDIS_DOWN) as error:
            logger.warning("answerer_failed", answerer=type(answerer).__name__, reason=str(error))
            continue
        if answer is not None:
            return answer
    return None
