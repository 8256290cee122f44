"""Who answers without a GPU, in the order in which they are asked: at admission, and at the claim."""

from collections.abc import Mapping

from core.settings import Settings
from queues.answerers import Answerer
from queues.similar.answerers import ExactAnswerer, SimilarAnswerer
from queues.similar.embedder import Embedder
from queues.similar.index import AnswerIndex
from queues.template_book import TemplateAnswerer, TemplateBook


def answerers(
    settings: Settings,
    answers: AnswerIndex,
    book: TemplateBook,
    *,
    revisions: Mapping[str, str],
    embedder: Embedder | None,
) -> tuple[Answerer, ...]:
    """`revisions` are the models', by name: answers of another revision are not used."""
    templates = TemplateAnswerer(book)
    if not settings.answers.enabled:
        return (templates,)
    return (
        ExactAnswerer(answers, revisions, settings.answers),
        SimilarAnswerer(answers, revisions, settings.answers, embedder),
        templates,
    )
