"""The default matcher: the same words in the same order, and nothing less."""

import pytest

from queues.similar.text import LONGEST, canonical
from tests.unit.similar_pairs import DIFFERENT, PARAPHRASES, REWORDINGS, Pair


def _says_the_same(pair: Pair) -> bool:
    first, second = canonical(pair[0]), canonical(pair[1])
    return bool(first) and first == second


@pytest.mark.parametrize("pair", DIFFERENT, ids=" / ".join)
def test_questions_that_ask_for_something_else_never_match(pair: Pair) -> None:
    assert not _says_the_same(pair)


def test_rewordings_match() -> None:
    missed = [pair for pair in REWORDINGS if not _says_the_same(pair)]

    assert len(missed) <= len(REWORDINGS) // 10, missed


def test_the_table_is_large_and_in_two_languages() -> None:
    chinese = [pair for pair in (*REWORDINGS, *DIFFERENT) if any("\u4e00" <= c <= "\u9fff" for c in pair[0])]

    assert len(REWORDINGS) + len(DIFFERENT) + len(PARAPHRASES) >= 200
    assert len(chinese) >= 40


@pytest.mark.parametrize("text", ["", "  ?! ", "x" * (LONGEST + 1)])
def test_what_says_nothing_or_too_much_is_not_compared(text: str) -> None:
    assert canonical(text) == ()


@pytest.mark.parametrize("text", ["please", "Thanks!", "hello", "请", "谢谢", "C++", "👍"])
def test_a_courtesy_alone_is_kept(text: str) -> None:
    assert canonical(text)
