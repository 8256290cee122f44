"""The JSON Schema that an answer must follow: where it stands in `response_format`, and whether it is one."""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from jsonschema_rs import ValidationError, Validator, validator_cls_for

from queues.requests.patterns import pattern_problem

_LATEST: Final = "https://json-schema.org/draft/2020-12/schema"
_OLDER: Final = frozenset(
    {
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema#",
        "http://json-schema.org/draft-06/schema#",
        "http://json-schema.org/draft-04/schema#",
    }
)
_WRAPPER: Final = frozenset({"name", "schema", "strict"})  # no schema has these words; OpenAI's form has
_BOUNDS: Final = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minimum", "maximum"),
    ("minProperties", "maxProperties"),
)
_VALUES: Final = frozenset({"const", "enum", "default", "examples"})  # hold examples of answers, no schemas
_LONGEST_PLACE: Final = 200


def schema_of(json_schema: dict[str, Any]) -> Any:
    """The schema in `response_format.json_schema`: OpenAI's form has it in `schema`, a bare one is it."""
    return json_schema.get("schema") if is_wrapped(json_schema) else json_schema


def is_wrapped(json_schema: dict[str, Any]) -> bool:
    return not _WRAPPER.isdisjoint(json_schema)


def schema_problem(schema: Any) -> str | None:
    """What is wrong with it, without its values; None where it is a JSON Schema.

    Only its form is judged, and what no answer can follow. References and regular expressions are the
    engine's: no two have the same.
    """
    if not isinstance(schema, dict):
        return "Must be a JSON Schema object."
    error = next(iter(_judge(_draft(schema)).iter_errors(schema)), None)
    if error is not None:
        return f"Is not a valid JSON Schema: {_explain(error)}."
    return next(_impossible(schema), None)


def _impossible(schema: Any) -> Iterator[str]:
    """A schema is valid with it, and llama.cpp works on its grammar until it is killed as stalled."""
    if isinstance(schema, list):
        for one in schema:
            yield from _impossible(one)
    if not isinstance(schema, dict):
        return
    for least, most in _BOUNDS:
        low, high = schema.get(least), schema.get(most)
        if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
            yield f"No answer can follow it: {least} is above {most}."
    if isinstance(pattern := schema.get("pattern"), str) and (problem := pattern_problem(pattern)):
        yield f"No answer can follow it: a pattern {problem}."
    for name, one in schema.items():
        if name not in _VALUES:
            yield from _impossible(one)


def _draft(schema: dict[str, Any]) -> str:
    """The draft that it names, else the latest: an address that is none of theirs is never asked for."""
    named = schema.get("$schema")
    return named if isinstance(named, str) and named in _OLDER else _LATEST


@cache
def _judge(draft: str) -> Validator:
    # The drafts come with the library. In Rust because this runs between other requests: a schema of 900 kB
    # takes 20 ms; in Python it takes 3.5 s, and a small one 7 ms instead of 2 µs.
    return validator_cls_for({"$schema": draft})({"$ref": draft})


def _explain(error: ValidationError) -> str:
    place = ".".join(str(part) for part in error.instance_path)[:_LONGEST_PLACE] or "the schema"
    rule = error.kind.as_dict()
    match error.kind.name:
        case "type":
            return f"{place} must be of type {' or '.join(sorted(rule['types']))}"
        case "minimum":
            return f"{place} must be at least {rule['limit']}"
        case "uniqueItems":
            return f"{place} must not repeat an item"
        case "anyOf" if place.rpartition(".")[2] == "type":
            return f"{place} must be a type of JSON Schema (string, number, object, …) or a list of them"
        case keyword:
            return f"{place} breaks the rule {keyword}"
