"""The trace of the overload benchmark: who asks what, when, and what he refuses. Pure, from a seed."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

MEDIAN_TOKENS: Final = 384
_SPREAD: Final = 0.6  # of the logarithm: nine of ten ask for 140 to 1,030 tokens
_MOST_TOKENS: Final = 1600
CLASSES: Final = (("premium", 0.2), ("standard", 0.6), ("bulk", 0.2))
TEMPLATE_SHARE: Final = 0.3
REPEAT_SHARE: Final = 0.2
# What a caller may say of the levels; most say nothing.
_REFUSALS: Final[tuple[tuple[tuple[str, ...] | None, float], ...]] = (
    (None, 0.9),
    ((), 0.03),
    (("truncate",), 0.04),
    (("template", "similar"), 0.03),
)
TEMPLATES: Final = """
[[template]]
name = "opening-hours"
phrases = ["what are your opening hours", "when are you open", "你们几点营业"]
answer = "We are open from nine to five on weekdays."

[[template]]
name = "returns"
phrases = ["how do i return an item", "how can i send it back", "怎么退货"]
answer = "Returns are free for 30 days, {name}: print the label from your account."
fields = ["name"]
"""
_TEMPLATED: Final = (
    "What are your opening hours?",
    "Please tell me, when are you open?",
    "你们几点营业？",
    "How do I return an item?",
    "Hello, how can I send it back?",
    "请问怎么退货？",
)
# Asked again and again. The engine ends these by itself, after some 30 tokens: only whole answers are kept.
_POPULAR: Final = (
    "How do I reset my password?",
    "Can I change my delivery address?",
    "How long does delivery to France take?",
    "Which cards do you accept?",
    "How do I cancel my subscription?",
    "Where do I find my invoice?",
    "Can I pay by bank transfer?",
    "How do I change my email address?",
    "Do you deliver on Saturdays?",
    "How do I use a gift card?",
    "How do I delete my account?",
    "怎么修改收货地址？",
)
_RAMBLE: Final = "please " * 40
_REWORDINGS: Final[tuple[Callable[[str], str], ...]] = (
    lambda text: text,
    str.lower,
    lambda text: f"Hello, {text[0].lower()}{text[1:]}" if text.isascii() else f"你好，{text}",
    lambda text: f"{text.rstrip('?？')}!",
    lambda text: f"  {text.upper()} " if text.isascii() else f" {text}",
)


@dataclass(frozen=True, slots=True)
class Ask:
    """One submission: `at` seconds after the start; `allow` None says nothing about the levels."""

    at: float
    kind: str  # template, repeat or own
    service_class: str
    max_tokens: int
    allow: tuple[str, ...] | None
    content: str

    def body(self, *, tag: str, max_wait_ms: int | None = None) -> dict[str, Any]:
        document: dict[str, Any] = {
            "messages": [{"role": "user", "content": self.content}],
            "max_tokens": self.max_tokens,
            "service_class": self.service_class,
            "metadata": {"name": "Ada"},
            "tags": [tag],
        }
        if self.kind != "repeat":
            # Rewarded for the word that it was given so often, the tiny model says it until its limit, as a
            # large one talks. The repetition penalty alone was not enough: answers ended after 35 tokens.
            document["messages"].insert(0, {"role": "system", "content": _RAMBLE})
            document |= {"repetition_penalty": 0.5, "frequency_penalty": -2, "temperature": 0}
        if self.allow is not None:
            document["degradation"] = {"allow": list(self.allow)}
        if max_wait_ms is not None:
            document["max_wait_ms"] = max_wait_ms
        return document

    def refuses(self, level: str) -> bool:
        if self.allow is None:
            return self.service_class == "bulk"
        return level not in self.allow


def trace(*, rate: float, seconds: float, seed: int) -> list[Ask]:
    """Poisson arrivals; the same seed gives the same trace, for the policy on and off."""
    dice = random.Random(seed)  # noqa: S311 - a trace, no secret
    asks: list[Ask] = []
    at = dice.expovariate(rate)
    while at < seconds:
        asks.append(_ask(dice, at, number=len(asks)))
        at += dice.expovariate(rate)
    return asks


def _ask(dice: random.Random, at: float, *, number: int) -> Ask:
    roll = dice.random()
    kind = (
        "template" if roll < TEMPLATE_SHARE else "repeat" if roll < TEMPLATE_SHARE + REPEAT_SHARE else "own"
    )
    return Ask(
        at=at,
        kind=kind,
        service_class=_one_of(dice, CLASSES),
        max_tokens=min(_MOST_TOKENS, max(16, round(dice.lognormvariate(math.log(MEDIAN_TOKENS), _SPREAD)))),
        allow=_one_of(dice, _REFUSALS),
        content=_content(dice, kind, number),
    )


def _content(dice: random.Random, kind: str, number: int) -> str:
    if kind == "template":
        return dice.choice(_TEMPLATED)
    if kind == "repeat":
        return dice.choice(_REWORDINGS)(dice.choice(_POPULAR))
    return f"Tell me about my order A{dice.randrange(1000, 9999)}-{number}."


def _one_of(dice: random.Random, shares: Sequence[tuple[Any, float]]) -> Any:
    values, weights = zip(*shares, strict=True)
    return dice.choices(values, weights)[0]
