"""The phrase language of the data files: [a|b|] chooses, <name> is a word class, {slot} stays."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

_TOKEN = re.compile(r"\[|\]|\||<\w+>|[^\[\]|<>]+|[<>]")


@dataclass(frozen=True, slots=True)
class Choice:
    options: "tuple[Node, ...]"


Node: TypeAlias = "str | Choice | tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of a data file."""

    node: Node

    def choose(self, random: Random) -> str:
        return tidy(_choose(self.node, random))

    def expand(self) -> Iterator[str]:
        """Every phrase of the line, in a fixed order. Can be long: take what you need."""
        return (tidy(text) for text in _expand(self.node))


def parse(line: str, classes: Mapping[str, Sequence[str]]) -> Pattern:
    """Raises ValueError for an unbalanced bracket and KeyError for an unknown word class."""
    tokens = _TOKEN.findall(line)
    node, rest = _sequence(tokens, classes)
    if rest:
        raise ValueError(f"unbalanced bracket in {line!r}")
    return Pattern(node)


def tidy(text: str) -> str:
    return re.sub(r"\s+([,.!?])", r"\1", re.sub(r"\s+", " ", text)).strip()


def _sequence(tokens: list[str], classes: Mapping[str, Sequence[str]]) -> tuple[Node, list[str]]:
    parts: list[Node] = []
    while tokens and tokens[0] not in {"]", "|"}:
        part, *tokens = tokens
        if part == "[":
            choice, tokens = _choice(tokens, classes)
            parts.append(choice)
        elif part.startswith("<") and part.endswith(">"):
            parts.append(Choice(tuple(classes[part[1:-1]])))
        else:
            parts.append(part)
    return tuple(parts), tokens


def _choice(tokens: list[str], classes: Mapping[str, Sequence[str]]) -> tuple[Choice, list[str]]:
    options: list[Node] = []
    while True:
        option, tokens = _sequence(tokens, classes)
        options.append(option)
        if not tokens:
            raise ValueError("a bracket is not closed")
        closing, *tokens = tokens
        if closing == "]":
            return Choice(tuple(options)), tokens


def _choose(node: Node, random: Random) -> str:
    if isinstance(node, str):
        return node
    if isinstance(node, Choice):
        return _choose(random.choice(node.options), random)
    return "".join(_choose(part, random) for part in node)


def _expand(node: Node) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Choice):
        for option in node.options:
            yield from _expand(option)
    elif not node:
        yield ""
    else:
        for head in _expand(node[0]):
            for tail in _expand(node[1:]):
                yield head + tail
