"""Shared beginnings: trails stand for prompts, and the tree over them for every pair."""

from dataclasses import dataclass
from itertools import combinations, groupby

from hypothesis import given
from hypothesis import strategies as st

from queues.prefixes import CHUNK_TOKENS, MOST_CHUNKS, WIDTH, Warm, ranks, shared_chunks, trail_of, unshared

CHUNK = 256  # bytes


@dataclass(frozen=True)
class Begun:
    key: str
    arrived: float = 0.0
    prefix: str | None = None
    prefix_tokens: int = 0
    trail: str | None = None


def trail(letters: str) -> str | None:
    """Of a prompt that has one chunk for each letter, and a little more."""
    return trail_of(["".join(letter * CHUNK for letter in letters), "tail"])


def told(*letters: str) -> list[Begun]:
    return [Begun(f"{n}:{word}", float(n), trail=trail(word)) for n, word in enumerate(letters)]


def order(items: list[Begun], *, warm: tuple[str, ...] = (), most: int = 8192) -> list[str]:
    held = Warm.of((None, trail(word)) for word in warm)
    found = ranks(items, warm=held, most=most)
    ordered = sorted(items, key=lambda item: (found.get(item.key) or unshared(item), item.arrived))
    return [item.key.partition(":")[2] for item in ordered]


def test_a_prompt_shorter_than_a_chunk_has_no_trail() -> None:
    assert trail_of(["x" * (CHUNK - 2)]) is None
    assert trail_of([]) is None


def test_a_trail_grows_by_one_chunk_at_a_time_and_no_further_than_the_bound() -> None:
    assert [len(trail("abc"[:n]) or "") // WIDTH for n in (1, 2, 3)] == [1, 2, 3]
    assert len(trail_of(["x" * 10**6]) or "") == MOST_CHUNKS * WIDTH


def test_pieces_are_told_apart_where_they_end() -> None:
    assert trail_of(["a" * 200, "b" * 200]) != trail_of(["a" * 200 + "b" * 200])


def test_lone_surrogates_are_no_mistake() -> None:
    assert trail_of(["\ud800" * CHUNK]) is not None


@given(st.text("ab", max_size=6), st.text("ab", max_size=6))
def test_two_trails_share_what_their_prompts_share(one: str, other: str) -> None:
    common = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)

    found = shared_chunks(trail(one) or "", trail(other) or "")

    assert found == (min(len(one), len(other)) if common is None else common)


def test_the_longest_beginning_goes_first_and_nobody_leaves_it_early() -> None:
    words = ("xy", "abcd", "xz", "abq", "lone", "abce", "ar")

    assert order(told(*words)) == ["abcd", "abce", "abq", "ar", "xy", "xz", "lone"]


def test_the_branch_that_is_warm_goes_first() -> None:
    words = ("abcd", "xy", "abce", "xz", "abq", "abr")

    assert order(told(*words), warm=("abq",)) == ["abq", "abcd", "abce", "abr", "xy", "xz"]
    assert order(told("lone", "xq"), warm=("xz",)) == ["xq", "lone"]


def test_a_beginning_counts_for_the_bound_at_most() -> None:
    items = told("ab", "xyz", "ab", "xyz")

    assert order(items) == ["xyz", "xyz", "ab", "ab"]
    assert order(items, most=2 * CHUNK_TOKENS) == ["ab", "ab", "xyz", "xyz"]
    assert ranks(items, most=CHUNK_TOKENS - 1) == {}


def test_a_named_beginning_is_a_group_of_its_own_whatever_the_prompts_hold() -> None:
    named = [Begun("n1", 1, "key", 100), Begun("n2", 3, "key", 100), Begun("alone", 0, "other", 900)]
    items = [*named, *told("abc", "abd")]

    found = ranks(items, most=8192)

    assert found["n1"][:2] == found["n2"][:2] == (True, -100)
    assert "alone" not in found
    assert found["0:abc"][1] == -2 * CHUNK_TOKENS


WORDS = st.lists(st.text("abc", min_size=1, max_size=5), min_size=2, max_size=14)


@given(WORDS, st.lists(st.text("abc", min_size=1, max_size=5), max_size=3))
def test_every_beginning_is_together_and_nobody_that_shares_is_forgotten(
    words: list[str], warm: list[str]
) -> None:
    items = told(*words)

    ordered = order(items, warm=tuple(warm))

    assert sorted(ordered) == sorted(words)
    shared = {one[:n] for one, other in combinations(words, 2) for n in range(1, 6) if one[:n] == other[:n]}
    for head in shared:
        runs = [is_in for is_in, _ in groupby(word.startswith(head) for word in ordered)]
        assert runs.count(True) == 1
    found = ranks(items, warm=Warm.of((None, trail(word)) for word in warm), most=8192)
    heads = {word[:1] for word in warm} | {
        one[0] for one, other in combinations(words, 2) if one[0] == other[0]
    }
    assert set(found) == {item.key for item in items if item.key.partition(":")[2][0] in heads}
