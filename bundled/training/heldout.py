"""What is never trained on: written questions, phrasings picked by a hash, and whole ways of asking."""

import json
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from random import Random

from bundled.training.corpus import Corpus, Intent, load_corpus

SEED = 20260101
ONE_IN = 12  # one phrasing in this many is held out
SHORTEST = 3  # words; "hello" and "thanks" must be learnt
TIERS = ("written", "composed", "ways")


@dataclass(frozen=True, slots=True)
class Case:
    """One evaluation question. `split` is dev (looked at while building) or test (scored at the end)."""

    intent: str
    tier: str
    split: str
    system: str
    question: str
    answer: str
    template: str


def normal(template: str) -> str:
    """Case, punctuation and spacing do not make a phrasing new."""
    return " ".join(re.sub(r"[^\w{}]+", " ", template.lower()).split())


def is_held_core(intent: Intent, core: str) -> bool:
    form = normal(core)
    length = len(form) / 2 if intent.language == "zh" else len(form.split())
    return length >= SHORTEST and zlib.crc32(f"{SEED}:{intent.name}:{form}".encode()) % ONE_IN == 0


def forbidden_forms(corpus: Corpus) -> frozenset[str]:
    """Normal forms of every evaluation question, slots unfilled; training draws none of them."""
    return frozenset(normal(case.template) for case in cases(corpus))


def cases(corpus: Corpus) -> list[Case]:
    """The fixed evaluation set."""
    random = Random(SEED)  # noqa: S311  # data, not secrets
    return [case for intent in corpus.intents.values() for case in _cases_of(intent, corpus, random)]


def _cases_of(intent: Intent, corpus: Corpus, random: Random) -> Iterator[Case]:
    from bundled.training.questions import draw_core, put_around, put_in

    def case(tier: str, number: int, template: str) -> Case:
        return _case(intent, corpus, random, (tier, number, template))

    yield from (case("written", number, line) for number, line in enumerate(intent.held))
    ways, held_ways = corpus.ways[intent.language], corpus.held_ways[intent.language]
    for number, (core, kind) in enumerate(_held_cores(intent, random)):
        yield case(
            "composed", number, core if intent.bare else put_in(random.choice(ways.frames[kind]), core)
        )
    for number in range(4):
        core, kind = draw_core(intent, random)
        if intent.bare:
            continue  # nothing is put around small talk
        if number % 2 and kind in held_ways.frames:
            yield case("ways", number, put_in(random.choice(held_ways.frames[kind]), core))
        else:
            framed = put_in(random.choice(ways.frames[kind]), core)
            yield case("ways", number, put_around(framed, held_ways, random))


def _held_cores(intent: Intent, random: Random) -> list[tuple[str, str]]:
    """Up to four held phrasings, fewer for an intent with few; out of domain has many."""
    from bundled.training.questions import draw_core

    many = intent.name.startswith("outside")
    drawn = (draw_core(intent, random) for _ in range(1500 if many else 400))
    unique = {core: kind for core, kind in drawn if is_held_core(intent, core)}
    return list(islice(unique.items(), 80 if many else 4))


def _case(intent: Intent, corpus: Corpus, random: Random, drawn: tuple[str, int, str]) -> Case:
    from bundled.training.questions import recase
    from bundled.training.slots import SlotFiller, answer_of, fill

    tier, number, template = drawn
    values = SlotFiller(corpus, random, held=True).choose(template, intent)
    text = template if tier == "written" or intent.language == "zh" else recase(template, random)
    draw = random.random()
    system = ""
    if draw > 0.4:  # noqa: PLR2004
        system = random.choice(corpus.systems if draw < 0.8 else corpus.held_systems)  # noqa: PLR2004
    return Case(
        intent=intent.name,
        tier=tier,
        split="test" if tier == "written" else ("dev", "test")[number % 2],
        system=system,
        question=fill(text, values),
        answer=answer_of(intent, values, corpus),
        template=template,
    )


def main() -> None:
    """List the held-out questions, one JSON object a line."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "heldout.jsonl"
    shown = ("intent", "tier", "split", "question")
    rows = ({name: asdict(case)[name] for name in shown} for case in cases(load_corpus()))
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
