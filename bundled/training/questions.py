"""One question and its answer: a phrasing in a way of asking, with noise, and never a held-out one."""

# ruff: noqa: RUF001  # Chinese punctuation is meant

import re
from collections.abc import Collection
from dataclasses import dataclass
from random import Random

from bundled.training.corpus import Corpus, Intent, Ways
from bundled.training.grammar import tidy
from bundled.training.heldout import is_held_core, normal
from bundled.training.slots import SLOT, SlotFiller, answer_of, fill, invented_word

FUNCTION_WORDS = frozenset(
    [
        "the",
        "a",
        "an",
        "my",
        "to",
        "is",
        "do",
        "does",
        "of",
        "for",
        "can",
        "you",
        "i",
        "it",
        "on",
        "in",
        "please",
        "are",
        "be",
        "your",
    ]
)
_WORD = re.compile(r"\{\w+\}|[a-z']+(?:-[a-z]+)*")


@dataclass(frozen=True, slots=True)
class Question:
    intent: str
    template: str
    text: str
    answer: str


class QuestionSampler:
    """Draws training questions. `forbidden` holds the normal forms of every evaluation question."""

    def __init__(self, corpus: Corpus, random: Random, forbidden: Collection[str]) -> None:
        self._corpus, self._random, self._forbidden = corpus, random, forbidden
        self._fill = SlotFiller(corpus, random)
        self._intents = list(corpus.intents.values())
        self._shares = [intent.share for intent in self._intents]

    def draw(self) -> Question:
        intent = self._random.choices(self._intents, self._shares)[0]
        while True:
            core, kind = draw_core(intent, self._random)
            if is_held_core(intent, core):
                continue
            mixed = not intent.bare and self._random.random() < 0.12  # noqa: PLR2004
            template = self._mix(intent, core) if mixed else self._dress(intent, core, kind)
            if template is not None:
                return self.finish(intent, template)

    def draw_followup(self, intent: Intent) -> Question:
        return self.finish(intent, self._random.choice(intent.followups).choose(self._random))

    def finish(self, intent: Intent, template: str) -> Question:
        """Fill the slots, then let a person with a keyboard at it."""
        values = self._fill.choose(template, intent)
        text = fill(self._write(template, intent.language), values)
        if "oid" in values and self._random.random() < 0.04:  # noqa: PLR2004
            text = text.replace(values["oid"], values["oid"].lower())
        return Question(intent.name, template, text, answer_of(intent, values, self._corpus))

    def _dress(self, intent: Intent, core: str, kind: str) -> str | None:
        random, ways = self._random, self._corpus.ways[intent.language]
        if intent.language == "en" and random.random() < 0.3:  # noqa: PLR2004
            core = self._replace_words(core)
        if intent.language == "en" and not intent.bare and random.random() < 0.1:  # noqa: PLR2004
            core = self._slip_in(core)
        framed = core if intent.bare else put_in(random.choice(ways.frames[kind]), core)
        around = 0.12 if intent.bare else 0.4
        dressed = put_around(framed, ways, random) if random.random() < around else framed
        if any(normal(form) in self._forbidden for form in (core, framed, dressed)):
            return None
        return dressed

    def _mix(self, intent: Intent, core: str) -> str | None:
        """Two phrasings of one intent in one question, whole or as a handful of their words: words add up."""
        random = self._random
        other, _ = draw_core(intent, random)
        if is_held_core(intent, other):
            return None
        if intent.language == "zh":
            return self._allowed(core + "，" + other)
        if random.random() < 0.4:  # noqa: PLR2004
            return self._allowed(core + random.choice((". ", ", ", " and ", "? ", ". so ")) + other)
        kept = [word for word in f"{core} {other}".split() if "{" in word or random.random() < 0.6]  # noqa: PLR2004
        if random.random() < 0.3:  # noqa: PLR2004
            random.shuffle(kept)
        return self._allowed(" ".join(kept)) if len(kept) >= 3 else None  # noqa: PLR2004

    def _allowed(self, template: str) -> str | None:
        return None if normal(template) in self._forbidden else template

    def _slip_in(self, core: str) -> str:
        """A word or two that change nothing."""
        random, words = self._random, core.split()
        for _ in range(random.randint(1, 2)):
            known = random.random() < 0.6  # noqa: PLR2004
            filler = random.choice(self._corpus.topics["filler"]) if known else invented_word(random)
            words.insert(random.randint(0, len(words)), filler)
        return " ".join(words)

    def _replace_words(self, core: str) -> str:
        """One or two words become others of like meaning."""
        present = [word for word in self._corpus.synonyms if re.search(rf"\b{re.escape(word)}\b", core)]
        for word in self._random.sample(present, min(len(present), self._random.randint(1, 2))):
            other = self._random.choice(self._corpus.synonyms[word])
            core = re.sub(rf"(?<!\{{)\b{re.escape(word)}\b(?!\}})", other, core, count=1)
        return core

    def _write(self, template: str, language: str) -> str:
        random = self._random
        if language == "zh":
            return template + random.choice(("", "", "", "？", "？", "。", "!", "?"))
        if random.random() < 0.1:  # noqa: PLR2004
            template = _drop_words(template, random)
        if random.random() < 0.1:  # noqa: PLR2004
            template = _mistype(template, random)
        if random.random() < 0.04:  # noqa: PLR2004
            template = template.replace("'", random.choice(("", "\u2019", " ")))
        template = recase(template, random)
        if template[-1] not in "?.!" and random.random() < 0.6:  # noqa: PLR2004
            template += random.choice(("?", "?", "?", ".", "!", " ?", "??", "..."))
        return template


def draw_core(intent: Intent, random: Random) -> tuple[str, str]:
    """A phrasing and its kind; kinds with many lines come up more often, np lines less."""
    kinds = list(intent.patterns)
    weights = [len(intent.patterns[kind]) * (2.0 if kind == "do" else 1.0) for kind in kinds]
    kind = random.choices(kinds, weights)[0]
    return random.choice(intent.patterns[kind]).choose(random), kind


def put_in(frame: str, core: str) -> str:
    return tidy(frame.replace("{x}", core))


def put_around(framed: str, ways: Ways, random: Random) -> str:
    place = random.random()
    before = random.choice(ways.before) if place < 0.7 else ""  # noqa: PLR2004
    after = random.choice(ways.after) if place > 0.5 else ""  # noqa: PLR2004
    gap = (
        ""
        if after.startswith("，") or (after and after[0] >= "\u4e00")
        else random.choice((" ", " ", ", ", ". "))
    )
    joint = "" if before.endswith(("，", "！", "？")) else " "
    return tidy(before + joint + framed + (gap + after if after else ""))


def recase(text: str, random: Random) -> str:
    draw = random.random()
    if draw < 0.4:  # noqa: PLR2004
        return text
    if draw < 0.42:  # noqa: PLR2004
        return re.sub(r"\{\w+\}|[a-z]", lambda m: m[0] if m[0][0] == "{" else m[0].upper(), text)
    text = re.sub(r"\bi\b", "I", text)
    if text[0] != "{":
        text = text[0].upper() + text[1:]
    return re.sub(r"(?<=[.!?] )[a-z]", lambda m: m[0].upper(), text)


def _drop_words(text: str, random: Random) -> str:
    words = text.split()
    small = [i for i, word in enumerate(words) if word in FUNCTION_WORDS]
    if not small or len(words) <= 3:  # noqa: PLR2004
        return text
    gone = set(small) if random.random() < 0.3 else {random.choice(small)}  # noqa: PLR2004
    return " ".join(word for i, word in enumerate(words) if i not in gone) or text


def _mistype(text: str, random: Random) -> str:
    """One slip in one longer word; slots are left alone."""
    spots = [m for m in _WORD.finditer(text) if m[0][0] != "{" and len(m[0]) > 3]  # noqa: PLR2004
    if not spots or SLOT.fullmatch(text):
        return text
    spot = random.choice(spots)
    word, k = spot[0], random.randrange(1, len(spot[0]) - 1)
    slips = (
        word[:k] + word[k + 1 :],
        word[:k] + word[k + 1] + word[k] + word[k + 2 :],
        word[:k] + word[k] + word[k:],
        word[:k] + random.choice("abcdefghijklmnopqrstuvwxyz") + word[k + 1 :],
    )
    return text[: spot.start()] + random.choice(slips) + text[spot.end() :]
