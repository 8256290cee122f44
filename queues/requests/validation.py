"""A JSON object against a schema; what is wrong is said by field, and values are never repeated."""

import difflib
from collections.abc import Sequence
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from core.errors import InvalidFields

Model = TypeVar("Model", bound=BaseModel)

# A rule over several fields names the one to change in its error type: pydantic gives it no place.
OF_FIELD: Final = "of_field."
_MOST_PROBLEMS: Final = 20
_LONGEST_NAME: Final = 100
_SOURCES: Final = frozenset({"body", "query", "path", "header"})
_MOST_UNKNOWN: Final = 20


def validate(model: type[Model], document: dict[str, Any]) -> Model:
    """Raises `InvalidFields`, which names the fields and never repeats their values."""
    try:
        return model.model_validate(_without_most_unknown(model, document))
    except ValidationError as error:
        raise InvalidFields(_problems_of(error, model)) from None


def _without_most_unknown(model: type[BaseModel], document: dict[str, Any]) -> dict[str, Any]:
    # pydantic reports every unknown field: 100,000 of them fit into one body.
    if len(document) <= len(model.model_fields) + _MOST_UNKNOWN:
        return document
    unknown = [name for name in document if name not in model.model_fields]
    dropped = set(unknown[_MOST_UNKNOWN:])
    return {name: value for name, value in document.items() if name not in dropped}


def field_problems(found: Sequence[Any], model: type[BaseModel] | None = None) -> list[dict[str, str]]:
    """Pydantic's errors as field and message. Values are never repeated."""
    return [_field_problem(error, model) for error in found[:_MOST_PROBLEMS]]


def _problems_of(error: ValidationError, model: type[BaseModel]) -> list[dict[str, str]]:
    return field_problems(error.errors(include_url=False, include_context=False, include_input=False), model)


def _field_problem(error: Any, model: type[BaseModel] | None) -> dict[str, str]:
    place = [str(part)[:_LONGEST_NAME] for part in error["loc"]]
    if model is None and place and place[0] in _SOURCES:
        place = place[1:]
    if error["type"].startswith(OF_FIELD):
        place.append(error["type"].removeprefix(OF_FIELD))
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        message = _unknown(error["loc"], model)
    return {"field": ".".join(place) or "body", "message": message}


def _unknown(place: Sequence[Any], model: type[BaseModel] | None) -> str:
    known = list(model.model_fields) if model and len(place) == 1 else []
    nearest = difflib.get_close_matches(str(place[-1])[:_LONGEST_NAME], known, n=1)
    return f"Unknown field; did you mean {nearest[0]}?" if nearest else "Unknown field."
