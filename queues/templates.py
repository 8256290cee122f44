"""Template answers that operators write: `templates.toml`, checked at start, matched by phrases."""

import re
import tomllib
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import ConfigurationMistake
from models.degradation import Degradation, Level
from models.repositories.submission import ReadyAnswer
from queues.answerers import Question

_FIELD: Final = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_LONGEST: Final = 400  # characters: a longer question is about more than one intent
_SLACK: Final = 6  # words that a question may have beside the phrase


class Template(BaseModel):
    """One intent: the phrases that ask for it, in any languages, and its answer.

    `{name}` in the answer is filled from the job's metadata, for the names in `fields` only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=64)
    phrases: tuple[Annotated[str, Field(min_length=2, max_length=200)], ...] = Field(min_length=1)
    answer: str = Field(min_length=1)
    fields: tuple[str, ...] = ()

    def matches(self, question: str) -> bool:
        return any(_asks(normal(phrase), question) for phrase in self.phrases)

    def fill(self, metadata: dict[str, Any]) -> str | None:
        """The answer; None where a field that it needs was not given."""
        if any(name not in metadata for name in _FIELD.findall(self.answer)):
            return None
        return _FIELD.sub(lambda found: str(metadata[found[1]]), self.answer)


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
        template = Template.model_validate(table)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigurationMistake(f"{where}: {key!r}: {first['msg']}.") from error
    for name in _FIELD.findall(template.answer):
        if name not in template.fields:
            raise ConfigurationMistake(f"{where}: 'answer': {{{name}}} is not among `fields`. List it there.")
    return template


def match(templates: tuple[Template, ...], text: str) -> Template | None:
    """The first that the text asks for."""
    if len(text) > _LONGEST:
        return None
    question = normal(text)
    return next((template for template in templates if template.matches(question)), None)


class TemplateAnswerer:
    """Answers only a lone question: what came before it in a conversation may change what it means."""

    level = Level.TEMPLATE

    def __init__(self, templates: tuple[Template, ...]) -> None:
        self._templates = templates

    async def answer(self, question: Question) -> ReadyAnswer | None:
        text = _question(question.job.request)
        found = match(self._templates, text) if text else None
        filled = found.fill(question.job.metadata) if found is not None else None
        if filled is None:
            return None
        label = Degradation(Level.TEMPLATE, Level.TEMPLATE.label, question.reason)
        return replace(question.answer(filled), degradation=label)


def _question(request: dict[str, Any]) -> str | None:
    if request.get("response_format") not in (None, {"type": "text"}) or request.get("logprobs") is not None:
        return None
    if request.get("prompt") is not None:
        return str(request["prompt"])
    asked = [m for m in request.get("messages") or () if m["role"] not in {"system", "developer"}]
    if len(asked) != 1 or asked[0]["role"] != "user":
        return None
    return str(asked[0]["content"])
