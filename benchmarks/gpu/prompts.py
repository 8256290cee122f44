"""Prompts of known length in tokens, shared beginnings included."""

import random
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.gpu.checkpoint import corpus


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt. `group` names those that begin alike."""

    text: str
    max_tokens: int
    group: str


class Texts:
    """Cuts pieces of so many tokens out of the corpus; the same seed gives the same pieces."""

    def __init__(self, model: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self._ids = self._tokenizer.encode("\n".join(corpus())).ids

    def grouped(
        self, groups: int, each: int, *, shared: int, own: int, answer: int, seed: int
    ) -> list[Request]:
        """`groups` beginnings of `shared` tokens, each with `each` ends, shuffled."""
        rnd = random.Random(seed)  # noqa: S311 - the same prompts again
        requests = [
            Request(beginning + self._piece(rnd, own), answer, f"{seed}-{number}")
            for number in range(groups)
            for beginning in [self._piece(rnd, shared)]
            for _ in range(each)
        ]
        rnd.shuffle(requests)
        return requests

    def mixed(
        self, count: int, *, shared: int, own: int, answers: tuple[int, int], seed: int
    ) -> list[Request]:
        """One beginning; answers of a length between the two."""
        rnd = random.Random(seed)  # noqa: S311 - the same prompts again
        beginning = self._piece(rnd, shared)
        return [
            Request(beginning + self._piece(rnd, own), rnd.randint(*answers), str(seed)) for _ in range(count)
        ]

    def _piece(self, rnd: random.Random, tokens: int) -> str:
        start = rnd.randrange(len(self._ids) - tokens)
        # A number in front: pieces that begin alike by chance would share what they must not.
        return f"{rnd.randrange(10**9)} {self._tokenizer.decode(self._ids[start : start + tokens])}"
