"""From bytes to a JSON object. Whatever cannot be stored or sent on is refused by name."""

import json
import math
from collections.abc import Iterator
from typing import Any, Final

import orjson

from core.errors import BadInput, InvalidField

DEEPEST: Final = 64
_EXPLAINED: Final = 1_048_576  # bytes; a larger broken body is only called broken


def parse_document(body: bytes) -> dict[str, Any]:
    """The object in the bytes. Raises `BadInput` where they are no JSON, else `InvalidField`."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _explain(body, error) from None
    if b"\\u0000" in body:
        _refuse_unstorable(document)
    if not isinstance(document, dict):
        raise InvalidField("body", "Must be a JSON object.")
    return document


def _explain(body: bytes, error: orjson.JSONDecodeError) -> BadInput:
    """Orjson refuses NaN, infinities and lone surrogates without saying where they are."""
    if len(body) <= _EXPLAINED:
        try:
            _refuse_unstorable(json.loads(body))
        except InvalidField as named:
            return named
        except (ValueError, RecursionError):
            pass
    return BadInput(f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}.")


def _refuse_unstorable(document: Any) -> None:
    for path, value in _leaves(document):
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidField(path, "Must be a finite number.")
        if isinstance(value, str) and ("\0" in value or not _is_unicode(value)):
            raise InvalidField(path, "Must not contain NUL characters or lone surrogates.")


def _leaves(document: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Values and keys, each with the path of fields that leads there."""
    if depth > DEEPEST:
        raise InvalidField(path, f"Must not be nested deeper than {DEEPEST} levels.")
    if isinstance(document, dict):
        for key, value in document.items():
            name = key[:100].replace("\0", "").encode(errors="replace").decode()
            place = f"{path}.{name}" if path else name
            yield place, key
            yield from _leaves(value, place, depth + 1)
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from _leaves(value, f"{path}.{index}" if path else str(index), depth + 1)
    else:
        yield path or "body", document


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_shallow(document: Any, deepest: int = DEEPEST) -> bool:
    if isinstance(document, dict):
        return deepest > 0 and all(is_shallow(value, deepest - 1) for value in document.values())
    if isinstance(document, list):
        return deepest > 0 and all(is_shallow(value, deepest - 1) for value in document)
    return True
