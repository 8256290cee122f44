"""Degraded answers through the API: what is told to whom, on both profiles."""

from datetime import timedelta

from models.degradation import Degradation, Level
from models.repositories.submission import ReadyAnswer
from queues.answerers import Question, first_answer
from tests.contracts.stores import new_job, now


class Parrot:
    """Answers everything from a level on."""

    level = Level.TEMPLATE

    async def answer(self, question: Question) -> ReadyAnswer | None:
        label = Degradation(Level.TEMPLATE, "template", question.reason)
        return ReadyAnswer(
            output={"text": "Hello.", "finish_reason": "stop"},
            usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            expires_at=now() + question.keep,
            degradation=label,
        )


async def test_an_answerer_is_asked_from_its_level_on_and_where_it_is_allowed() -> None:
    job = new_job()

    def asked(level: Level, **changes: object) -> Question:
        one = new_job(**changes) if changes else job
        return Question(one, level, "why", one.terms, timedelta(days=1))

    refused = {"request": {"prompt": "x", "degradation": {"allow": ["truncate"]}}}

    assert await first_answer([Parrot()], asked(Level.TRUNCATE)) is None
    assert await first_answer([Parrot()], asked(Level.TEMPLATE)) is not None
    assert await first_answer([Parrot()], asked(Level.SIMILAR, **refused)) is None
