"""Beginnings that prompts share: how they are written down, and in which order they are read cheapest. Pure.

A prompt with a name for its beginning (`cache_key`, or its system prompt) belongs to the group of that name.
Any other is known by its trail: four characters for each whole chunk of 256 bytes, about 64 tokens. Two
trails begin alike as far as their prompts do, so a radix tree over the trails of a window finds the longest
common beginning of any two of them without a prompt at hand. Read depth first, no beginning is left before
all that share it went.
"""

import hashlib
from base64 import b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Protocol

CHUNK_TOKENS: Final = 64
MOST_CHUNKS: Final = 128  # 8,192 tokens: a trail has at most 512 characters
WIDTH: Final = 4  # characters of a chunk

_CHUNK_BYTES: Final = 256
_DIGEST: Final = 3  # bytes: in a window of 512, two chunks are taken for one another once in 100 windows
_MOST_BYTES: Final = MOST_CHUNKS * _CHUNK_BYTES

# Not warm, minus the tokens shared, when the first of the group came, its name, the place in it.
Rank = tuple[bool, int, float, str, int]


class Begun(Protocol):
    """What the order knows of a prompt's beginning; `arrived` orders what nothing else tells apart."""

    @property
    def key(self) -> str: ...
    @property
    def arrived(self) -> float: ...
    @property
    def prefix(self) -> str | None: ...
    @property
    def prefix_tokens(self) -> int: ...
    @property
    def trail(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Warm:
    """What an engine holds now, or is about to: names and trails."""

    names: frozenset[str] = frozenset()
    trails: frozenset[str] = frozenset()

    @classmethod
    def of(cls, begun: Iterable[tuple[str | None, str | None]]) -> "Warm":
        """From (name, trail) pairs."""
        pairs = list(begun)
        return cls(
            frozenset(name for name, _ in pairs if name), frozenset(trail for _, trail in pairs if trail)
        )


COLD: Final = Warm()


def trail_of(pieces: Iterable[str]) -> str | None:
    """The trail of a prompt in `pieces`, as they follow each other; None where no chunk is whole."""
    data = bytearray()
    for piece in pieces:
        data += piece[:_MOST_BYTES].encode(errors="surrogatepass") + b"\0"
        if len(data) >= _MOST_BYTES:
            break
    whole = min(len(data), _MOST_BYTES) // _CHUNK_BYTES
    chunks = (data[at * _CHUNK_BYTES : (at + 1) * _CHUNK_BYTES] for at in range(whole))
    digests = b"".join(hashlib.blake2b(chunk, digest_size=_DIGEST).digest() for chunk in chunks)
    return b64encode(digests).decode() or None


def ranks(items: Collection[Begun], *, warm: Warm = COLD, most: int) -> dict[str, Rank]:
    """By key: what shares most goes first, and what is warm before that; a group stays together.

    A beginning counts for `most` tokens at most. Items are missing that share nothing with another.
    """
    found = _named(items, warm.names, most)
    trails = [item for item in items if item.prefix is None and item.trail]
    if trails:
        found |= _trailing(trails, warm.trails, most)
    return found


def unshared(item: Begun) -> Rank:
    """The rank of one that begins like no other."""
    return (True, 0, item.arrived, "", 0)


def _named(items: Iterable[Begun], warm: frozenset[str], most: int) -> dict[str, Rank]:
    groups: dict[str, tuple[int, float]] = {}  # how many there are, when the first came
    for item in items:
        if item.prefix is not None:
            count, first = groups.get(item.prefix, (0, item.arrived))
            groups[item.prefix] = (count + 1, min(first, item.arrived))
    return {
        item.key: (item.prefix not in warm, -shared, groups[item.prefix][1], item.prefix, 0)
        for item in items
        if item.prefix is not None
        and (groups[item.prefix][0] > 1 or item.prefix in warm)
        and (shared := min(item.prefix_tokens, most))
    }


@dataclass(slots=True)
class _Node:
    """A beginning of `depth` chunks. `shared`, after `close`: the deepest that two under it have."""

    depth: int
    label: str
    members: Sequence[Begun] = ()
    warm: bool = False
    children: "list[_Node]" = field(default_factory=list)
    count: int = 0
    shared: int = 0
    first: float = float("inf")

    def close(self) -> "_Node":
        self.warm = self.warm or any(child.warm for child in self.children)
        self.count = len(self.members) + sum(child.count for child in self.children)
        own = self.depth if self.count > 1 or (self.count and self.warm) else 0
        self.shared = max([own, *(child.shared for child in self.children)])
        firsts = [item.arrived for item in self.members] + [child.first for child in self.children]
        self.first = min(firsts, default=float("inf"))
        self.children.sort(key=lambda child: (not child.warm, -child.shared, child.first, child.label))
        return self

    def walk(self) -> Iterator[Begun]:
        yield from sorted(self.members, key=lambda item: (item.arrived, item.key))
        for child in self.children:
            yield from child.walk()


def _trailing(items: Sequence[Begun], warm: frozenset[str], most: int) -> dict[str, Rank]:
    chunks = min(most // CHUNK_TOKENS, MOST_CHUNKS)
    by_trail: dict[str, list[Begun]] = {trail[: chunks * WIDTH]: [] for trail in warm}
    held = frozenset(by_trail)
    for item in items:
        by_trail.setdefault((item.trail or "")[: chunks * WIDTH], []).append(item)
    by_trail.pop("", None)
    found: dict[str, Rank] = {}
    for family in _tree(by_trail, held):
        if family.shared:
            tokens = family.shared * CHUNK_TOKENS
            found |= {
                item.key: (not family.warm, -tokens, family.first, family.label, place)
                for place, item in enumerate(family.walk())
            }
    return found


def _tree(by_trail: Mapping[str, Sequence[Begun]], warm: frozenset[str]) -> list[_Node]:
    """The root's children: at most two nodes a trail, and each is compared with its neighbour alone."""
    path = [_Node(0, "")]
    for before, trail in pairwise(["", *sorted(by_trail)]):
        _rise(path, shared_chunks(before, trail), before)
        path.append(_Node(len(trail) // WIDTH, trail, by_trail[trail], trail in warm))
    _rise(path, 0, "")
    return path[0].close().children


def _rise(path: list[_Node], depth: int, label: str) -> None:
    """Closes what is deeper than `depth`; a node at that depth is open afterwards."""
    while path[-1].depth > depth:
        child = path.pop().close()
        if path[-1].depth < depth:
            path.append(_Node(depth, label[: depth * WIDTH]))
        path[-1].children.append(child)


def shared_chunks(one: str, other: str) -> int:
    """How many chunks two trails have in common from their beginning: by bisection, for slices are cheap."""
    low, high = 0, min(len(one), len(other)) // WIDTH
    while low < high:
        middle = (low + high + 1) // 2
        if one[: middle * WIDTH] == other[: middle * WIDTH]:
            low = middle
        else:
            high = middle - 1
    return low
