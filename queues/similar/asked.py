"""A request as the caches see it: what it asks, and everything else that an answer depends on. Pure."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from queues.similar.meaning import meaning
from queues.similar.text import canonical

# What changes where an answer goes or when it is made, and never what it says.
_NOT_ASKED: Final = frozenset(
    {"cache", "cache_key", "degradation", "max_wait_ms", "result_ttl", "webhook", "stream"}
)
_PROMPT: Final = frozenset({"prompt", "messages", "max_tokens"})


@dataclass(frozen=True, slots=True)
class Asked:
    """Digests: of the whole request, of everything but the question, and of the question's words and meaning.

    `words` and `meaning` are None where there is nothing to compare. `opted` is the caller's own word on the
    cache.
    """

    exact: str
    scope: str
    words: str | None
    meaning: str | None
    question: str
    max_tokens: int | None
    is_repeatable: bool
    opted: bool | None

    @property
    def may_be_exact(self) -> bool:
        """A sampled answer stands for another one only where its caller says so."""
        return self.opted is not False and (self.is_repeatable or self.opted is True)

    @property
    def may_be_similar(self) -> bool:
        return self.opted is not False and self.words is not None

    @property
    def by_words(self) -> str:
        """What finds the answers to these words."""
        return f"{self.scope}:{self.words}"

    @property
    def by_meaning(self) -> str:
        """What finds the answers to questions that a model may call alike."""
        return f"{self.scope}:~{self.meaning}"


def asked(request: Mapping[str, Any], *, model: str, revision: str) -> Asked:
    """Of a request as it is kept with its job."""
    said = {name: value for name, value in request.items() if name not in _NOT_ASKED and value is not None}
    question, before = _question(said)
    policy = {name: value for name, value in said.items() if name not in _PROMPT}
    words = canonical(question)
    return Asked(
        exact=_digest([model, revision, said]),
        scope=_digest([model, revision, before, policy]),
        words=_digest(words) if words else None,
        meaning=_digest(meaning(words)) if words else None,
        question=question,
        max_tokens=said.get("max_tokens"),
        is_repeatable=said.get("temperature") == 0,
        opted=request.get("cache"),
    )


def _question(said: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The last user's message, and what was said before it; a prompt is all question."""
    messages = list(said.get("messages") or ())
    if not messages:
        return said.get("prompt") or "", []
    last = messages[-1]
    if last.get("role") != "user" or not isinstance(last.get("content"), str):
        return "", messages
    return last["content"], messages[:-1]


def _digest(value: Any) -> str:
    return hashlib.blake2b(orjson.dumps(value, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()
