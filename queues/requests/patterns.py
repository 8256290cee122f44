"""The repetitions of a regular expression in a JSON Schema: whether anything can follow them. Pure.

Not a judge of regular expressions: no two engines know the same ones, and each refuses what it does not know.
"""

import re
from typing import Final

# Escapes and classes hide braces; a class may begin with a bracket that ends nothing.
_TOKEN: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]?|\{(\d+)(?:,(\d*))?\}|[()]|.", re.DOTALL)
_MOST: Final = 2000  # llama.cpp's own limit for one repetition
_LONGEST: Final = 4096  # characters
_DIGITS: Final = 9


def pattern_problem(pattern: str) -> str | None:
    """What is wrong with it, fit to be sent; None where its repetitions are possible."""
    if len(pattern) > _LONGEST:
        return f"is longer than {_LONGEST} characters"
    for found in _TOKEN.finditer(pattern):
        if found[1] is None:
            continue
        least, most = found[1][:_DIGITS], (found[2] or found[1])[:_DIGITS]  # {3,} means 3 at least
        problem = _bounds_problem(int(least), int(most))
        if problem is not None:
            return problem
    return None


def _bounds_problem(least: int, most: int) -> str | None:
    if most < least:
        return f"repeats something at least {least} and at most {most} times"
    return f"repeats something {most} times, and may {_MOST} times" if most > _MOST else None
