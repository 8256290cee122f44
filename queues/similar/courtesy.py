"""Courtesies around a question, which say nothing of what is asked; inside it they are part of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from queues.similar import words

if TYPE_CHECKING:
    from queues.similar.text import Word


def _split(phrases: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Longest first, as the text splits them."""
    return tuple(sorted((tuple(phrase.split()) for phrase in phrases), key=len, reverse=True))


_GREETINGS: Final = _split(words.GREETINGS)
_PLEASE: Final = _split(words.PLEASE)
_FRAMES: Final = _split(words.FRAMES)
_THANKS: Final = _split(words.THANKS)
_MODALS: Final = frozenset({"can", "could", "would", "will"})
_SHORTEST: Final = 2  # words that must be left of a question


def without_courtesies(found: "list[Word]", *, is_quoting: bool) -> "list[Word]":
    """Where the question is about words, or quotes some, only what certainly is a courtesy goes."""
    careful = is_quoting or any(word.text in words.ABOUT_LANGUAGE for word in found)
    kept = _without_start(found, careful=careful)
    if not careful:
        kept = _without_end(kept)
    return _without_inner_please(kept)


def _without_start(found: "list[Word]", *, careful: bool) -> "list[Word]":
    kept = found
    while True:
        shorter = _step(kept, careful=careful)
        if len(shorter) < _SHORTEST or len(shorter) == len(kept):
            return kept
        kept = shorter


def _step(found: "list[Word]", *, careful: bool) -> "list[Word]":
    greeting = _leading(found, _GREETINGS + _THANKS)
    if greeting and not careful:
        rest = found[greeting:]
        if _pauses(found[greeting - 1]) or (rest and rest[0].text in words.OPENERS):
            return rest
    please = _leading(found, _PLEASE)
    if please and ":" not in found[please - 1].after:
        return found[please:]
    frame = _leading(found, _FRAMES)
    if frame:
        return found[frame:]
    if len(found) > 3 and [word.text for word in found[:2]] == ["tell", "me"]:  # noqa: PLR2004
        return found[2:] if found[2].text in words.QUESTIONS else found
    return _without_modal(found)


def _without_modal(found: "list[Word]") -> "list[Word]":
    """A request in the form of a question: "could you please …", "can you explain …"."""
    if len(found) > 3 and found[0].text in _MODALS and found[1].text == "you":  # noqa: PLR2004
        please = _leading(found[2:], _PLEASE)
        if please:
            return found[2 + please :]
        if found[2].text in words.ASKING:
            return found[2:]
    return found


def _without_end(found: "list[Word]") -> "list[Word]":
    for phrases in (_THANKS, _PLEASE, _THANKS):
        length = _trailing(found, phrases)
        rest = found[: len(found) - length]
        if length and len(rest) >= _SHORTEST and ":" not in rest[-1].after:
            found = rest
    return found


def _without_inner_please(found: "list[Word]") -> "list[Word]":
    """As in "could I please have" and "can we please get"."""
    if len(found) > 3 and found[0].text in words.AUXILIARIES and found[1].text in words.PRONOUNS:  # noqa: PLR2004
        please = _leading(found[2:], _PLEASE)
        return [*found[:2], *found[2 + please :]]
    return found


def _leading(found: "list[Word]", phrases: tuple[tuple[str, ...], ...]) -> int:
    for phrase in phrases:
        if len(phrase) < len(found) and tuple(word.text for word in found[: len(phrase)]) == phrase:
            return len(phrase)
    return 0


def _trailing(found: "list[Word]", phrases: tuple[tuple[str, ...], ...]) -> int:
    for phrase in phrases:
        if len(phrase) < len(found) and tuple(word.text for word in found[-len(phrase) :]) == phrase:
            return len(phrase)
    return 0


def _pauses(word: "Word") -> bool:
    return any(mark in word.after for mark in ",.!;，。！-")


def without_zh_courtesies(found: "list[Word]", *, is_quoting: bool) -> "list[Word]":
    """Chinese: one character is one word, so the phrases are compared as text."""
    text = "".join(word.text for word in found)
    if is_quoting or not any("\u4e00" <= character <= "\u9fff" for character in text):
        return found
    if any(phrase in text for phrase in words.ZH_ABOUT_LANGUAGE):
        return _without_particles(_without_zh_start(found, ("请问", "请", "麻烦你", "麻烦")))
    return _without_particles(_without_zh_end(_without_zh_start(found, words.ZH_GREETINGS + words.ZH_BEFORE)))


def _without_zh_start(found: "list[Word]", phrases: Sequence[str]) -> "list[Word]":
    kept, asks = found, False
    while phrase := _zh_phrase(kept, phrases):
        if len(kept) - len(phrase) < _SHORTEST or ":" in kept[len(phrase) - 1].after:
            return kept
        asks = asks or phrase.endswith("帮我")
        kept = kept[len(phrase) :]
    if asks and kept[-1].text == "吗":  # "能帮我取消订单吗" asks to cancel it
        kept = [*kept[:-2], kept[-2]._replace(after=kept[-1].after)]
    return kept


def _zh_phrase(found: "list[Word]", phrases: Sequence[str]) -> str:
    for phrase in sorted(phrases, key=len, reverse=True):
        if "".join(word.text for word in found[: len(phrase)]) != phrase or len(phrase) >= len(found):
            continue
        following, pauses = found[len(phrase)].text, bool(found[len(phrase) - 1].after)
        if phrase in words.ZH_GREETINGS and not pauses and following not in words.ZH_OPENERS:
            continue
        if following not in words.ZH_NO_COURTESY.get(phrase[-1] if phrase != "帮我" else phrase, ()):
            return phrase
    return ""


def _without_zh_end(found: "list[Word]") -> "list[Word]":
    for phrase in sorted(words.ZH_AFTER, key=len, reverse=True):
        rest = found[: -len(phrase)]
        if "".join(word.text for word in found[-len(phrase) :]) == phrase and len(rest) >= _SHORTEST:
            return found if ":" in rest[-1].after else rest
    return found


def _without_particles(found: "list[Word]") -> "list[Word]":
    """Particles at the end of a clause."""
    kept: list[Word] = []
    for index, word in enumerate(found):
        ends = index == len(found) - 1 or bool(word.after)
        if word.text in words.ZH_PARTICLES and ends and kept:
            kept[-1] = kept[-1]._replace(after=kept[-1].after + word.after)
        else:
            kept.append(word)
    return kept
