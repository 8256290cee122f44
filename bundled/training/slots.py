"""Slot values: what fills {oid}, {product}, {country} and the rest, in questions and in answers."""

import re
import string
from collections.abc import Mapping
from random import Random

from bundled.training.corpus import Corpus, Intent

SLOT = re.compile(r"\{(\w+)\}")

_SYLLABLES = tuple(
    re.findall(
        r"\w+",
        "ba be bi bo bu da de di do du fa fe fi ga go gu ka ke ko la le li lo lu ma me mi mo na ne "
        "no pa pe po ra re ri ro ru sa se si so ta te ti to va ve vi vo wa we xo ya yo za ze zu bra "
        "cre dri flo gri klo pra spe sta tru ner tor lin ken mus pol rax vik zon del fer gan hol "
        "jat",
    )
)


class SlotFiller:
    """Chooses values for the slots of one question. `held` turns on the values kept out of training."""

    def __init__(self, corpus: Corpus, random: Random, *, held: bool = False) -> None:
        self._corpus, self._random, self._held = corpus, random, held

    def choose(self, template: str, intent: Intent) -> dict[str, str]:
        """Values for the slots of the question and of the answer."""
        values: dict[str, str] = {}
        for name in SLOT.findall(template):
            values.setdefault(name, self._value(name, intent.language))
        if "{plan}" in intent.answer and "plan" not in values:
            raise ValueError(f"{intent.name}: the answer needs a plan that the question lacks: {template}")
        return values

    def _value(self, name: str, language: str) -> str:  # noqa: PLR0911  # one line a slot
        random, slots, topics = self._random, self._corpus.slots, self._corpus.topics
        if name == "oid":
            return order_number(random)
        if name == "product":
            return self._product(language)
        if name == "country":
            return random.choice(list(slots["countries_zh" if language == "zh" else "countries"]))
        if name == "plan":
            return random.choice(list(slots["plans"]))
        if name in {"pay", "nopay"}:
            return random.choice(slots[f"{name}_zh" if language == "zh" else name])
        if name == "number":
            return str(random.randint(0, random.choice((12, 100, 5000))))
        if name in {"noise", "rare"}:
            return noise(random) if name == "noise" else invented_word(random)
        if self._held and f"{name}_held" in topics and random.random() < 0.5:  # noqa: PLR2004
            return random.choice(topics[f"{name}_held"])
        if name == "topic" and random.random() < 0.1:  # noqa: PLR2004
            return invented_word(random)
        return random.choice(topics[name])

    def _product(self, language: str) -> str:
        random, slots = self._random, self._corpus.slots
        known = "products_zh" if language == "zh" else "products"
        if self._held and random.random() < 0.3:  # noqa: PLR2004
            return random.choice(slots[f"{known}_held"])
        product = random.choice(slots[known])
        if language == "zh":
            return product
        draw = random.random()
        if draw < 0.08:  # noqa: PLR2004
            return invented_word(random)  # an unknown word in its place teaches copying
        return f"{random.choice(slots['adjectives'])} {product}" if draw < 0.16 else product  # noqa: PLR2004


def order_number(random: Random) -> str:
    draw, digits = random.random(), "".join(random.choices(string.digits, k=8))
    letter, other = random.choices(string.ascii_uppercase, k=2)
    if draw < 0.72:  # noqa: PLR2004
        return letter + digits[:4]
    if draw < 0.86:  # noqa: PLR2004
        return digits[: random.randint(5, 8)]
    if draw < 0.94:  # noqa: PLR2004
        return letter + other + random.choice(("", "-")) + digits[: random.randint(4, 6)]
    return "ORD-" + digits[:5]


def invented_word(random: Random) -> str:
    return "".join(random.choices(_SYLLABLES, k=random.randint(2, 4)))


def noise(random: Random) -> str:
    pool = random.choice(("asdfghjkl", "qwertyuiop", "zxcvbnm", "?!.", string.ascii_lowercase, "aaaa", "xyz"))
    return "".join(random.choices(pool, k=random.randint(1 if "?" in pool else 3, 9)))


def fill(template: str, values: Mapping[str, str]) -> str:
    return SLOT.sub(lambda match: values[match[1]], template)


def answer_of(intent: Intent, values: Mapping[str, str], corpus: Corpus) -> str:
    """The intent's answer, repeating the order and the product that the question named."""
    chinese = intent.language == "zh"
    known = dict(values)
    if chinese:
        order = f"订单 {values['oid']}" if "oid" in values else "该订单"
        item = values.get("product", "该商品")
    else:
        order = f"order {values['oid']}" if "oid" in values else "your order"
        item = "the " + values.get("product", "item")
    for name, text in (("order", order), ("item", item)):
        known[f"the_{name}"] = text
        known[f"The_{name}"] = text[0].upper() + text[1:]
    if "country" in values:
        first = corpus.slots["countries_zh" if chinese else "countries"][values["country"]]
        known |= {"days": str(first), "days2": str(first + 2)}
    if "plan" in values:
        price, seats, projects = corpus.slots["plans"][values["plan"]]
        known |= {"price": str(price), "seats": str(seats), "projects": str(projects)}
    return fill(intent.answer, known)
