"""What a question asks, with the ways of asking folded into one: the guard that stands after a cosine. Pure.

A model that measures likeness cannot tell "lock" from "unlock", so what it calls alike must also say the
same content words in the same order. What may differ is listed here, and is a closed class: negations,
opposites, roles, numbers, units, dates, names and identifiers are content.
"""

from typing import Final

from queues.similar import words

_HOW: Final = ("how", "i")
_CAN: Final = ("can", "i")
# The longest first. "How could I" is often no question, and "how should I" asks for advice.
_FRAMES: Final[tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = tuple(
    (tuple(frame.split()), meant)
    for frame, meant in (
        ("what do i need to do to", _HOW),
        ("what do i have to do to", _HOW),
        ("what must i do to", _HOW),
        ("what is way for me to", _HOW),
        ("what is best way to", _HOW),
        ("what is way to", _HOW),
        ("in what way can i", _HOW),
        ("how am i able to", _HOW),
        ("how would i", _HOW),
        ("how can i", _HOW),
        ("how do i", _HOW),
        ("how to", _HOW),
        ("is it possible for me to", _CAN),
        ("is it possible to", _CAN),
        ("am i able to", _CAN),
        ("could i", _CAN),
        ("where can i find", ("where", "is")),
        ("where do i find", ("where", "is")),
        ("where are", ("where", "is")),
        ("how long will", ("how", "long", "does")),
        ("how much will", ("how", "much", "does")),
        ("how often will", ("how", "often", "does")),
    )
)
_HOW_ZH: Final = (("如", "何"), ("怎", "样"), ("怎", "么"))
# After these it asks why, and not how.
_NOT_HOW_ZH: Final = frozenset("没不还这那了回样会")


def meaning(said: tuple[str, ...]) -> tuple[str, ...]:
    """Of a question's canonical words: the content in its order, behind one form of each way of asking."""
    said = tuple(word for word in said if word != "my")
    for frame, meant in _FRAMES:
        if said[: len(frame)] == frame and len(said) > len(frame):
            return (*meant, *said[len(frame) :])
    if said[:2] in _HOW_ZH and len(said) > 2 and said[2] not in _NOT_HOW_ZH:  # noqa: PLR2004 - two characters
        return (*_HOW, *said[2:])
    if said[:1] == ("which",) and len(said) > 1 and said[1] not in words.AUXILIARIES:
        return ("what", *said[1:])
    return said
