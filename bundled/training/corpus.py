"""The data files as values: intents, ways of asking, slot values, system prompts."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundled.training.grammar import Pattern, parse

DATA = Path(__file__).parent / "data"
KINDS = ("do", "ask", "say", "know", "np", "more")


@dataclass(frozen=True, slots=True)
class Intent:
    """One thing that people want, how they say it, and the one answer they get."""

    name: str
    language: str
    answer: str
    share: float
    bare: bool
    patterns: Mapping[str, tuple[Pattern, ...]]
    followups: tuple[Pattern, ...]
    held: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ways:
    """Ways of asking in one language: frames around a core by kind, and words before and after."""

    frames: Mapping[str, tuple[str, ...]]
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    intents: Mapping[str, Intent]
    ways: Mapping[str, Ways]
    held_ways: Mapping[str, Ways]
    slots: Mapping[str, Any]
    topics: Mapping[str, tuple[str, ...]]
    synonyms: Mapping[str, tuple[str, ...]]
    systems: tuple[str, ...]
    system_sentences: tuple[str, ...]
    held_systems: tuple[str, ...]


def load_corpus(folder: Path = DATA) -> Corpus:
    classes, more = _read(folder / "words.toml"), _read(folder / "more.toml")
    frames, systems = _read(folder / "frames.toml"), _read(folder / "systems.toml")
    return Corpus(
        intents={
            intent.name: intent
            for language in ("en", "zh")
            for path in sorted((folder / language).glob("*.toml"))
            for intent in _intents(_with_more(_read(path), more), language, classes[language])
        },
        ways={language: _ways(frames[language], "around") for language in ("en", "zh")},
        held_ways={language: _ways(frames[language], "around_held", held=True) for language in ("en", "zh")},
        slots=_slots(_read(folder / "slots.toml")),
        topics={name: split(value) for name, value in _read(folder / "topics.toml").items()},
        synonyms=_synonyms(_read(folder / "synonyms.toml")["groups"]),
        systems=tuple(systems["whole"]),
        system_sentences=tuple(systems["sentences"]),
        held_systems=tuple(systems["held"]),
    )


def lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.replace("\n", " ").split(",") if part.strip())


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _with_more(entries: dict[str, Any], more: Mapping[str, str]) -> dict[str, Any]:
    return {
        name: entry | {"more": f"{entry.get('more', '')}\n{more.get(name, '')}"}
        for name, entry in entries.items()
    }


def _intents(entries: Mapping[str, Any], language: str, classes: Mapping[str, Sequence[str]]) -> list[Intent]:
    return [
        Intent(
            name=name,
            language=language,
            answer=entry["answer"],
            share=entry.get("share", 1.0),
            bare=entry.get("bare", False),
            patterns={kind: _patterns(entry[kind], classes) for kind in KINDS if entry.get(kind, "").strip()},
            followups=_patterns(entry.get("followup", ""), classes),
            held=lines(entry["held"]),
        )
        for name, entry in entries.items()
    ]


def _patterns(text: str, classes: Mapping[str, Sequence[str]]) -> tuple[Pattern, ...]:
    return tuple(parse(line, classes) for line in lines(text))


def _ways(entry: Mapping[str, Any], around: str, *, held: bool = False) -> Ways:
    frames = entry["held"] if held else entry
    return Ways(
        frames={kind: lines(frames[kind]) for kind in KINDS if kind in frames},
        before=lines(entry[around]["before"]),
        after=lines(entry[around]["after"]),
    )


def _slots(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: split(value) if isinstance(value, str) else value for name, value in entry.items()}


def _synonyms(groups: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    for group in groups:
        for word in group:
            table[word] = table.get(word, ()) + tuple(other for other in group if other != word)
    return table
