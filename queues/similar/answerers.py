"""Answers from the index: the same request's at any time, a similar question's under pressure."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from core.settings import AnswerSettings
from models.degradation import Degradation, Level
from models.repositories.submission import ReadyAnswer
from queues.answerers import Question
from queues.similar.asked import Asked, asked
from queues.similar.embedder import Embedder, cosine, unpacked
from queues.similar.index import AnswerIndex, KeptAnswer

# The same words in the same order.
SAME_WORDS: Final = 1.0


class ExactAnswerer:
    """What was answered in full stays full: it is asked at every level, and nobody refuses it.

    Under `overload` it is silent while there is none.
    """

    level = Level.FULL

    def __init__(self, index: AnswerIndex, revisions: Mapping[str, str], settings: AnswerSettings) -> None:
        self._index = index
        self._revisions = revisions
        self._always = settings.exact == "always"

    async def answer(self, question: Question) -> ReadyAnswer | None:
        if question.level is Level.FULL and not self._always:
            return None
        said = _said(question, self._revisions)
        if said is None or not said.may_be_exact:
            return None
        kept = await self._index.find(question.tenant_id, said.exact)
        if kept is None:
            return None
        return _ready(question, kept, level=Level.FULL, reason="the same request was answered before")


class SimilarAnswerer:
    """The recent answer to the same question in other words.

    Without an embedder the same words in the same order; with one, also what it calls alike and has the same
    content words.
    """

    level = Level.SIMILAR

    def __init__(
        self,
        index: AnswerIndex,
        revisions: Mapping[str, str],
        settings: AnswerSettings,
        embedder: Embedder | None = None,
    ) -> None:
        self._index = index
        self._revisions = revisions
        self._min_similarity = settings.min_similarity
        self._embedder = embedder

    async def answer(self, question: Question) -> ReadyAnswer | None:
        wanted = question.terms.min_similarity
        least = self._min_similarity if wanted is None else wanted
        said = _said(question, self._revisions)
        if said is None or not said.may_be_similar or least > SAME_WORDS:
            return None
        kept, similarity = await self._index.find(question.tenant_id, said.by_words), SAME_WORDS
        if kept is None and self._embedder is not None:
            kept = await self._index.find(question.tenant_id, said.by_meaning)
            similarity = await _alike(self._embedder, said.question, kept)
        # An answer longer than this caller asked for is not what he asked for.
        if kept is None or kept.completion_tokens > (said.max_tokens or kept.completion_tokens):
            return None
        if similarity < least:
            return None
        return _ready(
            question, kept, level=Level.SIMILAR, reason=question.reason, similarity=round(similarity, 3)
        )


async def _alike(embedder: Embedder, question: str, kept: KeptAnswer | None) -> float:
    if kept is None or kept.vector is None:
        return 0.0
    return cosine(await asyncio.to_thread(embedder.embed, question), unpacked(kept.vector))


def _said(question: Question, revisions: Mapping[str, str]) -> Asked | None:
    """None for a job that wants an answer of its own."""
    if question.wants_its_own:
        return None
    revision = revisions.get(question.model, "")
    return asked(question.request, model=question.model, revision=revision)


def _ready(
    question: Question, kept: KeptAnswer, *, level: Level, reason: str, similarity: float = SAME_WORDS
) -> ReadyAnswer:
    label = Degradation(level, level.label, reason, similarity=similarity, source_job_id=kept.job_id)
    answer = question.answer(kept.output["text"], reasoning=kept.output.get("reasoning"))
    return replace(answer, degradation=label)
