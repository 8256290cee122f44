"""Paraphrases through the index: what an embedder calls alike, and what the guard lets through of it."""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from core.errors import ConfigurationMistake
from core.settings import AnswerSettings
from models.catalogue import Catalogue
from models.degradation import Level
from models.lifecycle import Status
from models.repositories.submission import NewJob, ReadyAnswer
from models.views import JobView
from queues.answerers import Question
from queues.redis import Redis
from queues.similar.answerers import SimilarAnswerer
from queues.similar.embedder import cosine, open_embedder, packed, unpacked
from queues.similar.feed import AnswerFeed
from queues.similar.index import AnswerIndex
from tests.contracts.stores import new_job, now

SETTINGS = AnswerSettings()
ASKED = "How do I reset my password?"


class EverythingIsAlike:
    """The worst model there is: only the guard is left."""

    def embed(self, text: str) -> Sequence[float]:
        return (1.0, 0.0)


class NothingIsAlike:
    def embed(self, text: str) -> Sequence[float]:
        turned = int.from_bytes(hashlib.sha256(text.encode()).digest()[:2]) % 2
        return (0.0, 1.0) if turned else (1.0, 0.0)


def asks(text: str, **changes: Any) -> NewJob:
    return new_job(request={"prompt": text, "max_tokens": 64}, model="default", **changes)


def ended(job: NewJob) -> JobView:
    return JobView(
        id=job.id,
        tenant_id=job.tenant_id,
        model=job.model,
        service_class=job.service_class,
        priority=5,
        status=Status.COMPLETED,
        version=3,
        created_at=now(),
        expires_at=now() + timedelta(hours=1),
        output={"text": "By mail.", "reasoning": None, "finish_reason": "stop"},
        usage={"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    )


class Asked:
    """One index that knows the answer to `ASKED`, with one embedder."""

    def __init__(self, redis: Redis, namespace: str, embedder: Any) -> None:
        index = AnswerIndex(redis, namespace=namespace, settings=SETTINGS)
        revisions = Catalogue.bundled().revisions
        self._feed = AnswerFeed(index, SETTINGS, revisions, embedder)
        self._answerer = SimilarAnswerer(index, revisions, SETTINGS, embedder)

    async def knows(self, text: str = ASKED) -> None:
        job = asks(text)
        self._feed.start()
        self._feed.offer(ended(job), job.request)
        await self._feed.flush()
        await self._feed.close()

    async def ask(self, text: str, **changes: Any) -> ReadyAnswer | None:
        job = asks(text, **changes)
        question = Question.of_new(job, level=Level.SIMILAR, reason="why", keep=timedelta(hours=1))
        return await self._answerer.answer(question)


@pytest.fixture
def namespace() -> str:
    return f"paraphrases-{new_job().id}"


async def test_a_paraphrase_gets_the_answer_with_its_likeness(redis: Redis, namespace: str) -> None:
    asked = Asked(redis, namespace, EverythingIsAlike())
    await asked.knows()

    found = await asked.ask("What is the way to reset my password?")

    assert found is not None
    assert found.degradation is not None
    assert (found.output["text"], found.degradation.similarity) == ("By mail.", 1.0)


@pytest.mark.parametrize(
    "text",
    ["How do I set my password?", "How do I not reset my password?", "How do you reset my password?"],
)
async def test_what_the_guard_refuses_is_no_match_however_alike(
    redis: Redis, namespace: str, text: str
) -> None:
    asked = Asked(redis, namespace, EverythingIsAlike())
    await asked.knows()

    assert await asked.ask(text) is None


async def test_what_the_model_does_not_call_alike_is_no_match(redis: Redis, namespace: str) -> None:
    asked = Asked(redis, namespace, NothingIsAlike())
    await asked.knows("How can I pay?")

    alike = [text for text in ("How do I pay?", "How to pay?", "How would I pay?") if await asked.ask(text)]

    assert cosine(NothingIsAlike().embed("How can I pay?"), NothingIsAlike().embed("How do I pay?")) in {0, 1}
    assert len(alike) < 3


async def test_without_an_embedder_and_for_another_tenant_nothing_is_found(
    redis: Redis, namespace: str
) -> None:
    paraphrase = "How can I reset my password?"
    wording, neural = Asked(redis, namespace, None), Asked(redis, f"{namespace}-2", EverythingIsAlike())
    await wording.knows()
    await neural.knows()

    assert await wording.ask(paraphrase) is None
    assert await neural.ask(paraphrase, tenant_id="other") is None
    assert await neural.ask(paraphrase) is not None


def test_a_vector_survives_its_packing_and_models_are_not_mixed() -> None:
    vector = (0.6, -0.8, 0.0)

    assert unpacked(packed(vector)) == pytest.approx(vector, abs=1e-3)
    assert cosine(vector, (1.0, 0.0)) == 0.0


def test_a_folder_without_a_model_is_a_mistake_with_a_way_out(tmp_path: Any) -> None:
    with pytest.raises(ConfigurationMistake, match="holds no sentence-transformers model"):
        open_embedder(tmp_path)
    assert open_embedder(None) is None
