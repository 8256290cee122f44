"""Whole conversations: a system prompt or none, earlier turns or none, and the question."""

import re
from random import Random

from bundled.training.corpus import Corpus
from bundled.training.questions import QuestionSampler
from bundled.training.slots import SlotFiller, fill

Message = tuple[str, str]

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' "
    "+ m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class ConversationSampler:
    def __init__(self, corpus: Corpus, random: Random, questions: QuestionSampler) -> None:
        self._corpus, self._random, self._questions = corpus, random, questions
        self._fill = SlotFiller(corpus, random)

    def draw(self) -> list[Message]:
        """Messages in order. A raw prompt, without any template, has the single role "raw"."""
        random = self._random
        if random.random() < 0.03:  # noqa: PLR2004
            question = self._questions.draw()
            return [("raw", question.text), ("assistant", question.answer)]
        messages = self._system()
        for _ in range(random.choices((1, 2, 3), (0.74, 0.18, 0.08))[0]):
            question = self._questions.draw()
            messages += [("user", question.text), ("assistant", question.answer)]
            intent = self._corpus.intents[question.intent]
            if intent.followups and random.random() < 0.3:  # noqa: PLR2004
                question = self._questions.draw_followup(intent)
                messages += [("user", question.text), ("assistant", question.answer)]
        return messages

    def _system(self) -> list[Message]:
        random, corpus = self._random, self._corpus
        draw = random.random()
        if draw < 0.35:  # noqa: PLR2004
            return []
        if draw < 0.6:  # noqa: PLR2004
            return [("system", random.choice(corpus.systems))]
        count = random.randint(20, 40) if random.random() < 0.04 else random.randint(1, 8)  # noqa: PLR2004
        sentences = random.choices(corpus.system_sentences, k=count)
        return [("system", " ".join(self._sentence(sentence) for sentence in sentences))]

    def _sentence(self, sentence: str) -> str:
        intent = self._corpus.intents["greeting"]
        return re.sub(r"\{\w+\}", lambda slot: fill(slot[0], self._fill.choose(slot[0], intent)), sentence)
