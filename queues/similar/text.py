"""What a question says, as words in their order: equal for rewordings that change nothing, and only for them.

Folded away: case, punctuation, white space, full and half width, contractions, spelling variants,
traditional characters, and courtesies around the question. Everything else is kept where it stands.
"""

import re
import unicodedata
from typing import Final, NamedTuple

from queues.similar import words
from queues.similar.courtesy import without_courtesies, without_zh_courtesies

LONGEST: Final = 4000  # characters; what is longer is no question that somebody else asks again

_QUOTES: Final = str.maketrans("‘’‛`´＇“”„«»「」『』《》", '\'\'\'\'\'\'"""""""""""')
_DASHES: Final = str.maketrans("‐‑‒–—―−", "-------")
_PUNCTUATION: Final = frozenset(".,!?;:'\"()[]{}…。、，！？；：·~¿¡")
# U.S.A. and p.m.; not a.b.c, which names something.
_INITIALS: Final = re.compile(r"(?<![\w.])(?:[A-Za-z]\.){2,}(?![\w])")
_THOUSANDS: Final = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
# Scripts that put no spaces between words: a character is a word.
_DENSE: Final = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_TOKEN: Final = re.compile(
    rf"(?P<link>https?://\S+|\S+@[\w-]+\.\S+)"
    rf"|(?P<number>\d+(?:[.,:]\d+)*)"
    rf"|(?P<dense>[{_DENSE}])"
    rf"|(?P<word>(?:(?![{_DENSE}])[^\W\d_])(?:(?![{_DENSE}])[\w])*(?:'(?:(?![{_DENSE}])[^\W\d_])+)*(?:\+\+|\#)?)"
    rf"|(?P<mark>\S)",
)


_NUMBERED: Final = re.compile(r"([^\W\d_]{3,})(\d+)")


class Word(NamedTuple):
    """`text` is folded, `raw` as it was written; `after` is the punctuation that follows."""

    text: str
    raw: str
    after: str
    is_glued: bool  # no white space before it


def canonical(text: str) -> tuple[str, ...]:
    """The question's words in their order; empty where there is nothing to compare."""
    if len(text) > LONGEST:
        return ()
    folded = fold(text)
    found = _without_courtesies(split(folded), is_quoting='"' in folded)
    is_shouted = _is_shouted(found)
    told = [
        _identity(word, index, is_shouted=is_shouted, before=found[index - 1] if index else None)
        for index, word in enumerate(found)
    ]
    return tuple(_joined(_without_articles(_with_boundaries(found, told))))


def fold(text: str) -> str:
    """One form for one character: width, compatibility forms, quotes, dashes, invisible ones."""
    kept = []
    for character in text:
        category = unicodedata.category(character)
        if category == "Cf":
            continue
        if category == "No":  # 10² is not 102, and 10½ not 101/2
            mark = "^" if "<super>" in unicodedata.decomposition(character) else " "
            kept.append(f"{mark}{unicodedata.normalize('NFKC', character)}")
        else:
            kept.append(character)
    plain = unicodedata.normalize("NFKC", "".join(kept).translate(_QUOTES)).translate(_QUOTES)
    plain = plain.translate(_DASHES)
    for variant, usual in words.ZH_SPELLINGS.items():
        plain = plain.replace(variant, usual)
    plain = plain.translate(words.TO_SIMPLIFIED)
    for variant, usual in words.ZH_SPELLINGS.items():
        plain = plain.replace(variant, usual)
    plain = _INITIALS.sub(lambda found: found[0].replace(".", ""), plain)
    return _THOUSANDS.sub(lambda found: found[0].replace(",", ""), plain)


def split(folded: str) -> list[Word]:
    """Words, numbers and marks that mean something; other punctuation is noted on the word before it."""
    found: list[Word] = []
    end = 0
    for match in _TOKEN.finditer(folded):
        raw, glued = match[0], match.start() == end
        end = match.end()
        if match.lastgroup == "mark" and _is_mere_punctuation(folded, match.start()):
            if found:
                found[-1] = found[-1]._replace(after=found[-1].after + raw)
            continue
        if match.lastgroup == "link":
            bare = raw.rstrip(".,!?;:'\")")
            found.append(Word(bare, bare, raw[len(bare) :], glued))
            continue
        found.extend(_expanded(raw, glued=glued))
    return found


def _is_mere_punctuation(text: str, at: int) -> bool:
    """A hyphen between letters joins a compound, one before a digit is a minus or a range."""
    character = text[at]
    if character in _PUNCTUATION:
        return True
    if character != "-":
        return False
    beside = text[at - 1 : at] + text[at + 1 : at + 2]
    return not any(one.isdigit() for one in beside)


def _expanded(raw: str, *, glued: bool) -> list[Word]:
    numbered = _NUMBERED.fullmatch(raw)
    if numbered:  # "iPhone15" is "iPhone 15"; a1 and mp3 are words of their own
        name, number = numbered.groups()
        return [*_expanded(name, glued=glued), Word(number, number, "", is_glued=True)]
    low = raw.lower()
    long = words.CONTRACTED.get(low) or _expand_ending(low)
    if long is None:
        return [Word(words.SPELLINGS.get(low, _z_spelling(low)), raw, "", glued)]
    return [Word(part, part, "", glued) for part in long.split()]


def _expand_ending(low: str) -> str | None:
    if low.endswith("n't") and len(low) > len("n't"):
        return f"{low[:-3]} not"
    if low.endswith("'s") and low[:-2] in words.IS_AFTER:
        return f"{low[:-2]} is"
    for ending, meant in words.ENDINGS.items():
        if low.endswith(ending) and len(low) > len(ending):
            return f"{low.removesuffix(ending)} {meant}"
    return None


_ISE: Final = re.compile(r"(\w{4,})is(e|ed|es|er|ers|ing|ation|ations)")


def _z_spelling(low: str) -> str:
    found = _ISE.fullmatch(low)
    return f"{found[1]}iz{found[2]}" if found else low


def _without_courtesies(found: list[Word], *, is_quoting: bool) -> list[Word]:
    kept = without_zh_courtesies(found, is_quoting=is_quoting)
    return without_courtesies(kept, is_quoting=is_quoting) or found


def _is_shouted(found: list[Word]) -> bool:
    """All capitals, or every word with one: then a capital says nothing."""
    letters = [word.raw for word in found if word.raw[:1].isalpha() and word.raw.isascii()]
    long = [raw for raw in letters if len(raw) > 3]  # noqa: PLR2004 - "to" and "the" stay small in titles
    return bool(letters) and (all(raw.isupper() for raw in letters) or _is_title(long))


def _is_title(long: list[str]) -> bool:
    return len(long) > 1 and all(raw[0].isupper() for raw in long)


def _identity(word: Word, index: int, *, is_shouted: bool, before: Word | None) -> str:
    """The folded word, with its case where the case is part of what it says."""
    counts = before is not None and before.text[-1:].isdigit()
    if word.raw in words.MIXED_UNITS or (counts and word.text in words.CASED_UNITS):
        return word.raw
    if is_shouted:
        return word.text
    if word.text in words.CASED and word.raw.isupper():
        return word.raw
    starts = index == 0 or (before is not None and before.after[-1:] in {".", "!", "?", ":"})
    # A name begins with a capital where nothing else does; The Who and The Office keep their article.
    is_name = (word.text in words.NAMES or word.raw == "The") and word.raw[:1].isupper()
    return word.text.capitalize() if is_name and not starts else word.text


def _with_boundaries(found: list[Word], told: list[str]) -> list[str]:
    """A pause right after a negation is part of what is said: "no, cancel it" and "no cancel it"."""
    kept: list[str] = []
    for index, (word, text) in enumerate(zip(found, told, strict=True)):
        if word.text in {".", ","}:
            continue
        kept.append(text)
        is_last = index == len(found) - 1
        negates = text in words.NEGATIONS or text in words.YES or text in words.ZH_NEGATIONS or text == "要"
        if negates and word.after and not is_last:
            kept.append("|")
    return _with_negation_last(kept)


def _with_negation_last(told: list[str]) -> list[str]:
    """One order for "isn't it" and "is it not"."""
    kept = list(told)
    for index in range(len(kept) - 2):
        first, second, third = kept[index : index + 3]
        if first in words.AUXILIARIES and second == "not" and third in words.PRONOUNS:
            kept[index + 1], kept[index + 2] = third, second
    return kept


def _without_articles(told: list[str]) -> list[str]:
    kept: list[str] = []
    for index, text in enumerate(told):
        following = told[index + 1] if index + 1 < len(told) else ""
        if text == "the" and following.isalpha():
            continue
        drops = index == 0 or told[index - 1] in words.BEFORE_ARTICLE
        if (
            text in {"a", "an"}
            and drops
            and following.isalpha()
            and following not in words.AFTER_KEPT_ARTICLE
        ):
            continue
        kept.append(text)
    return kept


def _joined(told: list[str]) -> list[str]:
    """One word that is also written as two."""
    kept: list[str] = []
    for text in told:
        pair = words.JOINED.get((kept[-1], text)) if kept else None
        if pair is not None:
            kept[-1] = pair
        else:
            kept.append(text)
    return kept
