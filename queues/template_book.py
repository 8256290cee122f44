"""The templates in force, of the file and those that operators set meanwhile; and who answers by them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import ValidationError

from core.errors import StoreUnavailable
from core.logs import get_logger
from models.degradation import Degradation, Level
from models.dialect import Database
from models.repositories import templates
from models.repositories.submission import ReadyAnswer
from queues.answerers import Question
from queues.templates import Template, match

logger = get_logger(__name__)

_FRESH: Final = 2.0  # seconds that the operators' templates are believed


@dataclass(frozen=True, slots=True)
class Listed:
    """A template, and whether an operator set it; `hides` says that one of the file has the same name."""

    template: Template
    is_set: bool
    hides: bool = False


class TemplateBook:
    """One that an operator sets stands in place of the file's own of its name, else after the file's."""

    def __init__(self, database: Database, of_file: Sequence[Template]) -> None:
        self._database = database
        self._of_file = tuple(of_file)
        self._set: dict[str, Template] = {}
        self._read_at = float("-inf")

    async def listed(self) -> list[Listed]:
        """In the order in which they are tried."""
        await self._refresh()
        named = {template.name for template in self._of_file}
        kept = [
            Listed(self._set.get(one.name, one), one.name in self._set, hides=one.name in self._set)
            for one in self._of_file
        ]
        return kept + [
            Listed(one, is_set=True) for name, one in sorted(self._set.items()) if name not in named
        ]

    async def match(self, text: str) -> Template | None:
        return match(tuple(one.template for one in await self.listed()), text)

    def forget(self) -> None:
        """Something was set: the next one who asks reads again."""
        self._read_at = float("-inf")

    async def _refresh(self) -> None:
        """What was known last holds while the database is down."""
        if time.monotonic() - self._read_at < _FRESH:
            return
        self._read_at = time.monotonic()
        try:
            async with self._database.read() as connection:
                rows = await templates.all_of_them(connection)
        except StoreUnavailable:
            logger.debug("templates_not_read")
            return
        self._set = {name: found for name, intent in rows.items() if (found := _template(name, intent))}


def _template(name: str, intent: dict[str, Any]) -> Template | None:
    """Another version may have written it: what is not understood answers nobody."""
    try:
        return Template.model_validate({**intent, "name": name})
    except ValidationError:
        logger.warning("template_not_understood", template=name)
        return None


class TemplateAnswerer:
    """Answers only a lone question: what came before it in a conversation may change what it means."""

    level = Level.TEMPLATE

    def __init__(self, book: TemplateBook) -> None:
        self._book = book

    async def answer(self, question: Question) -> ReadyAnswer | None:
        text = _question(question.request)
        found = await self._book.match(text) if text else None
        filled = found.fill(question.metadata) if found is not None else None
        if filled is None:
            return None
        label = Degradation(Level.TEMPLATE, Level.TEMPLATE.label, question.reason)
        return replace(question.answer(filled), degradation=label)


def _question(request: Mapping[str, Any]) -> str | None:
    if request.get("response_format") not in (None, {"type": "text"}) or request.get("logprobs") is not None:
        return None
    if request.get("prompt") is not None:
        return str(request["prompt"])
    asked = [m for m in request.get("messages") or () if m["role"] not in {"system", "developer"}]
    if len(asked) != 1 or asked[0]["role"] != "user":
        return None
    return str(asked[0]["content"])
