"""Evaluation on the held-out questions: how many answers are sensible, and do both engines agree."""

# ruff: noqa: RUF001  # Chinese punctuation is meant

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from bundled.training.answerers import Answer, HuggingFace, LlamaCpp, Messages
from bundled.training.corpus import Corpus, load_corpus
from bundled.training.heldout import Case, cases, forbidden_forms, normal
from bundled.training.questions import QuestionSampler

CLOSE = 0.9  # token F1 with the reference answer
_VALUE = re.compile(r"[A-Z]+-?\d+|\d+(?:\.\d+)?")
_TOKEN = re.compile(r"[\u4e00-\u9fff]|[^\s\u4e00-\u9fff]+")


@dataclass(frozen=True, slots=True)
class Verdict:
    case: Case
    answer: Answer
    sensible: bool
    well_formed: bool


def judge(case: Case, answer: Answer) -> Verdict:
    """Sensible: the text of the right intent, nearly word for word, with every slot and number right."""
    sensible = (
        answer.stopped
        and token_f1(answer.text, case.answer) >= CLOSE
        and slots_of(answer.text) == slots_of(case.answer)
        and all(value in answer.text for value in spoken_values(case))
    )
    return Verdict(case, answer, sensible, is_well_formed(answer.text))


def token_f1(text: str, reference: str) -> float:
    left, right = Counter(tokens(text)), Counter(tokens(reference))
    common = sum((left & right).values())
    return 2 * common / max(1, left.total() + right.total())


def tokens(text: str) -> list[str]:
    return [token.strip(".,!?:;，。！？“”").lower() for token in _TOKEN.findall(text)]


def slots_of(text: str) -> list[str]:
    return sorted(_VALUE.findall(text))


def spoken_values(case: Case) -> list[str]:
    """The filled slots of the question that the reference answer repeats, product names included."""
    pattern = re.sub(r"\\\{\w+\\\}", "(.+?)", re.escape(case.template))
    match = re.fullmatch(pattern, case.question, flags=re.IGNORECASE)
    return [value for value in (match.groups() if match else ()) if value in case.answer]


def is_well_formed(text: str) -> bool:
    """A whole sentence without broken characters, markup or a word said three times running."""
    whole = text.endswith((".", "!", "?", "。", "！", "？")) and "\ufffd" not in text and "<|" not in text
    return whole and not re.search(r"\b(\w+)(?: \1){2}\b", text)


def messages_of(case: Case) -> Messages:
    system = [{"role": "system", "content": case.system}] if case.system else []
    return [*system, {"role": "user", "content": case.question}]


def count_leaks(corpus: Corpus, *, draws: int) -> int:
    """Training questions, drawn anew, whose form is that of an evaluation question. Must be 0."""
    forbidden = forbidden_forms(corpus)
    sampler = QuestionSampler(corpus, Random(7), forbidden)  # noqa: S311  # data, not secrets
    return sum(normal(sampler.draw().template) in forbidden for _ in range(draws))


def count_phrasings(corpus: Corpus, *, enough: int = 5000) -> dict[str, int]:
    """Different phrasings of each intent, before any way of asking is put around them."""
    return {
        intent.name: len(
            {
                normal(text)
                for patterns in intent.patterns.values()
                for pattern in patterns
                for text in islice(pattern.expand(), enough)
            }
        )
        for intent in corpus.intents.values()
    }


def share(verdicts: Iterable[bool]) -> dict[str, float | int]:
    outcomes = list(verdicts)
    return {"of": len(outcomes), "share": round(sum(outcomes) / max(1, len(outcomes)), 4)}


def report(verdicts: Sequence[Verdict]) -> dict[str, dict[str, float | int]]:
    unfamiliar = load_corpus().held_systems
    groups = {
        **{tier: [v for v in verdicts if v.case.tier == tier] for tier in ("composed", "ways", "written")},
        "held-out phrasings": [v for v in verdicts if v.case.tier in {"composed", "ways"}],
        "English": [v for v in verdicts if not v.case.intent.endswith("_zh")],
        "Chinese": [v for v in verdicts if v.case.intent.endswith("_zh")],
        "out of domain": [v for v in verdicts if v.case.intent.startswith("outside")],
        "with an unfamiliar system prompt": [v for v in verdicts if v.case.system in unfamiliar],
    }
    found = {name: share(v.sensible for v in group) for name, group in groups.items()}
    for tier in ("composed", "written"):
        found[f"out of domain, {tier}"] = share(
            v.sensible for v in groups["out of domain"] if v.case.tier == tier
        )
    found["well-formed"] = share(v.well_formed for v in verdicts)
    found["stopped by itself"] = share(v.answer.stopped for v in verdicts)
    return found


def parse_options() -> argparse.Namespace:
    home = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, default=home / "support-tiny-Q8_0.gguf")
    parser.add_argument("--hf", type=Path, default=home / "hf")
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--no-hf", action="store_true", help="leave out the reference: needs no torch")
    parser.add_argument("--show", type=int, default=0, help="print this many wrong answers")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    corpus = load_corpus()
    if leaks := count_leaks(corpus, draws=100_000):
        sys.exit(f"{leaks} held-out questions are in the training data")
    chosen = [case for case in cases(corpus) if case.split == options.split]
    conversations = [messages_of(case) for case in chosen]
    answers = LlamaCpp(options.gguf).answer(conversations)
    verdicts = [judge(case, answer) for case, answer in zip(chosen, answers, strict=True)]
    found: dict[str, object] = {"llama.cpp": report(verdicts)}
    if not options.no_hf:
        reference = HuggingFace(options.hf).answer(conversations)
        pairs = list(zip(chosen, reference, strict=True))
        found["Hugging Face"] = report([judge(case, answer) for case, answer in pairs])
        found["same answer"] = share(a.text == b.text for a, b in zip(answers, reference, strict=True))
    print(json.dumps(found, indent=2))  # noqa: T201  # the command's output
    for verdict in [v for v in verdicts if not v.sensible][: options.show]:
        print(verdict.case.intent, verdict.case.question, verdict.answer.text, sep=" | ")  # noqa: T201


if __name__ == "__main__":
    main()
