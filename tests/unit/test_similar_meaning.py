"""The guard after the cosine: ways of asking are one, and nothing that changes what is asked."""

import pytest

from queues.similar.meaning import meaning
from queues.similar.text import canonical
from tests.unit.similar_pairs import DIFFERENT, PARAPHRASES, REWORDINGS, Pair


def asks_the_same(pair: Pair) -> bool:
    first, second = (meaning(canonical(text)) for text in pair)
    return bool(first) and first == second


@pytest.mark.parametrize("pair", DIFFERENT, ids=" / ".join)
def test_the_guard_alone_lets_no_other_question_through(pair: Pair) -> None:
    assert not asks_the_same(pair)


# Not among those that the frames were made with.
@pytest.mark.parametrize(
    "pair",
    [
        ("How could I forget?", "How do I forget?"),
        ("How should I pay?", "How do I pay?"),
        ("How do you pay?", "How do I pay?"),
        ("How did I pay?", "How do I pay?"),
        ("Which is it?", "What is it?"),
        ("Can I pay later?", "How can I pay later?"),
        ("Can you pay?", "Can I pay?"),
        ("Must I pay?", "Can I pay?"),
        ("Where can I find her?", "Where can I find him?"),
        ("Where do I find it?", "Where did I find it?"),
        ("How long will it take?", "How long did it take?"),
        ("How long does it take?", "How often does it take?"),
        ("Is it possible to fail?", "Is it impossible to fail?"),
        ("Is it possible to fail?", "Is it possible not to fail?"),
        ("What is the best way to fail?", "What is the worst way to fail?"),
        ("Is my car blue?", "Is your car blue?"),
        ("怎么没有发货", "如何发货"),
        ("怎么不发货", "如何不发货"),
        ("怎么这样", "如何这样"),
    ],
    ids=" / ".join,
)
def test_frames_that_look_alike_stay_apart(pair: Pair) -> None:
    assert not asks_the_same(pair)


def test_six_of_ten_paraphrases_pass_the_guard() -> None:
    passed = [pair for pair in PARAPHRASES if asks_the_same(pair)]

    assert len(passed) >= 0.6 * len(PARAPHRASES), passed


def test_the_guard_knows_every_rewording_that_the_default_knows() -> None:
    lost = [
        pair for pair in REWORDINGS if canonical(pair[0]) == canonical(pair[1]) and not asks_the_same(pair)
    ]

    assert lost == []
