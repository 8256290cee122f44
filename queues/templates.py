"""Template answers that operators write: matched by phrases or expressions, filled from metadata. Pure.

`find_templates` reads them from `templates.toml`.
"""

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Self

import re2
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from core.errors import ConfigurationMistake
from queues.requests.validation import OF_FIELD

_FIELD: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_LONGEST: Final = 400  # characters: a longer question is about more than one intent
_SLACK: Final = 6  # words that a question may have beside the phrase
_MOST_MEMORY: Final = 1 << 20  # bytes of one compiled pattern


Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
_Phrase = Annotated[str, Field(min_length=2, max_length=200)]
_Pattern = Annotated[str, Field(min_length=1, max_length=500)]


class Intent(BaseModel):
    """What asks for an answer, and the answer.

    `patterns` are RE2's regular expressions, whose time is linear in the question; one must match all of it,
    in lower case and without punctuation. `{name}` in the answer is filled from the job's metadata, for the
    names in `fields` only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    phrases: tuple[_Phrase, ...] = Field(
        default=(), max_length=100, description="Phrases in any languages that ask for it."
    )
    patterns: tuple[_Pattern, ...] = Field(
        default=(),
        max_length=100,
        description="RE2 expressions that match a whole question, in lower case and without punctuation.",
    )
    answer: str = Field(
        min_length=1, max_length=20_000, description="`{name}` is filled from the job's metadata."
    )
    fields: tuple[Annotated[str, Field(max_length=64)], ...] = Field(
        default=(), max_length=16, description="The names that the answer may take from the metadata."
    )

    @model_validator(mode="after")
    def _is_usable(self) -> Self:
        if not self.phrases and not self.patterns:
            raise _mistake("phrases", "Give phrases or patterns that ask for this answer")
        for name in _FIELD.findall(self.answer):
            if name not in self.fields:
                raise _mistake("answer", f"{{{name}}} is not among `fields`. List it there")
        for pattern in self.patterns:
            try:
                _compiled(pattern)
            except re2.error as error:
                reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error.args[0]
                raise _mistake("patterns", f"{pattern!r} is no RE2 expression: {reason}") from error
        return self

    def matches(self, question: str) -> bool:
        """`question` as `normal` writes it."""
        if any(_asks(phrase, question) for phrase in self._normal):
            return True
        return any(pattern.fullmatch(question) for pattern in self._compiled)

    @cached_property
    def _normal(self) -> tuple[str, ...]:
        return tuple(normal(phrase) for phrase in self.phrases)

    @cached_property
    def _compiled(self) -> tuple[Any, ...]:
        return tuple(_compiled(pattern) for pattern in self.patterns)

    def fill(self, metadata: Mapping[str, Any]) -> str | None:
        """The answer; None where a field that it needs was not given."""
        if any(name not in metadata for name in _FIELD.findall(self.answer)):
            return None
        return _FIELD.sub(lambda found: str(metadata[found[1]]), self.answer)


class Template(Intent):
    """An intent under a name."""

    name: Name


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MOST_MEMORY
    return re2.compile(pattern, options)


def _mistake(field: str, message: str) -> PydanticCustomError:
    """Names the field to change: a rule over several has no place of its own."""
    return PydanticCustomError(OF_FIELD + field, "{message}", {"message": message})


def normal(text: str) -> str:
    """Lower case, one form of each character, words parted by one blank, no punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


def _asks(phrase: str, question: str) -> bool:
    if not phrase:
        return False
    if phrase.isascii():
        extra = question.count(" ") - phrase.count(" ")
        return 0 <= extra <= _SLACK and f" {phrase} " in f" {question} "
    # Chinese and its like write no blanks between words.
    return phrase in question and len(question) - len(phrase) <= 2 * _SLACK


def find_templates(path: Path) -> tuple[Template, ...]:
    """Nothing where there is no file. Raises `ConfigurationMistake` with file and line."""
    if not path.exists():
        return ()
    text = path.read_text(encoding="utf-8")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise ConfigurationMistake(
            f"{path}:{line[1] if line else text.count(chr(10)) + 1}: not TOML: {error}."
        ) from error
    starts = [n for n, line in enumerate(text.splitlines(), 1) if line.strip() == "[[template]]"]
    tables = document.get("template", [])
    if document.keys() - {"template"} or not isinstance(tables, list) or len(tables) != len(starts):
        raise ConfigurationMistake(f"{path}:1: templates are [[template]] tables, and nothing else.")
    return tuple(_template(f"{path}:{start}", table) for start, table in zip(starts, tables, strict=True))


def _template(where: str, table: dict[str, Any]) -> Template:
    try:
        return Template.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"]) or first["type"].removeprefix(OF_FIELD)
        raise ConfigurationMistake(f"{where}: {key!r}: {first['msg']}.") from error


def match(templates: tuple[Template, ...], text: str) -> Template | None:
    """The first that the text asks for."""
    if len(text) > _LONGEST:
        return None
    question = normal(text)
    return next((template for template in templates if template.matches(question)), None)
