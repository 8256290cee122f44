"""What a prompt costs: its tokens against the model's context, its prefix group and its fingerprint."""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from core.errors import InvalidField, PromptTooLong
from models.catalogue import ServedModel
from queues.prefixes import trail_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

DEFAULT_MAX_TOKENS: Final = 256

_BYTES_PER_TOKEN: Final = 4  # of English text; only an estimate, for fair shares
_COUNTERS: Final = 2  # threads that count at once: 1 MB takes 0.9 s of a core
_SYSTEM: Final = frozenset({"system", "developer"})


@dataclass(frozen=True, slots=True)
class Demand:
    """What a request asks of an engine, in tokens. `prefix` names who begins alike; others have a `trail`."""

    prompt_tokens: int
    max_tokens: int
    prefix: str | None
    prefix_tokens: int
    trail: str | None = None

    @property
    def cost(self) -> int:
        return self.prompt_tokens + self.max_tokens


class PromptMeter:
    """Measures prompts. Counting tokens happens in a thread, and only where bytes do not settle it."""

    def __init__(self) -> None:
        self._tokenizers: dict[Path, asyncio.Task[Tokenizer]] = {}
        self._counters = asyncio.Semaphore(_COUNTERS)

    async def measure(self, model: ServedModel, request: Mapping[str, Any]) -> Demand:
        """`request` has `prompt` or `messages`, and perhaps `max_tokens` and `cache_key`.

        Raises `PromptTooLong` or `InvalidField` with the field, the limit and the way out.
        """
        texts = _texts(request)
        size = sum(_bytes(text) for text in texts)
        overhead = model.chat_template_overhead * (len(request.get("messages") or ()) + 1)
        wanted: int | None = request.get("max_tokens")
        room = model.context_length - overhead - size
        tokens = size // _BYTES_PER_TOKEN + 1 + overhead
        # Byte-level tokenizers never make more tokens than bytes.
        if room < (wanted or DEFAULT_MAX_TOKENS):
            if model.tokenizer is None:
                room = model.context_length - 1  # unknown: the engine's own refusal decides
            else:
                tokens = await self._count(model.tokenizer, texts) + overhead
                room = model.context_length - tokens
        max_tokens = _fit(request, room, tokens, model.context_length)
        prefix, prefix_tokens = _prefix(request, tokens)
        trail = None if prefix else trail_of(_pieces(request))
        return Demand(tokens, max_tokens, prefix, prefix_tokens, trail)

    async def _count(self, path: Path, texts: Sequence[str]) -> int:
        if path not in self._tokenizers:
            self._tokenizers[path] = asyncio.create_task(asyncio.to_thread(_load, path))
        try:
            tokenizer = await asyncio.shield(self._tokenizers[path])
        except BaseException:
            if self._tokenizers[path].done():
                del self._tokenizers[path]
            raise
        async with self._counters:
            return await asyncio.to_thread(_count, tokenizer, texts)


def fingerprint(request: Any) -> str:
    """Equal for equal requests, whatever the order of their keys: 32 hexadecimal digits."""
    canonical = orjson.dumps(request, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(canonical, digest_size=16).hexdigest()


def _texts(request: Mapping[str, Any]) -> list[str]:
    if request.get("prompt") is not None:
        return [request["prompt"]]
    texts = [message["content"] for message in request["messages"]]
    # Templates write calls and tools down as JSON, more or less.
    written = [message["tool_calls"] for message in request["messages"] if message.get("tool_calls")]
    written += request.get("tools") or []
    return texts + [orjson.dumps(one).decode() for one in written]


def _pieces(request: Mapping[str, Any]) -> Iterator[str]:
    """The prompt in the order of a template: what may be called stands before what was said."""
    if request.get("prompt") is not None:
        yield request["prompt"]
        return
    if request.get("tools"):
        yield orjson.dumps(request["tools"]).decode()
    for message in request["messages"]:
        yield message["role"]
        yield message["content"]


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _load(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _count(tokenizer: "Tokenizer", texts: Sequence[str]) -> int:
    encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return sum(len(encoding) for encoding in encoded)


def _fit(request: Mapping[str, Any], room: int, tokens: int, context: int) -> int:
    """The tokens of the answer; the default shrinks to what fits, an explicit wish is refused."""
    wanted: int | None = request.get("max_tokens")
    if room < 1:
        field = "prompt" if request.get("prompt") is not None else "messages"
        raise PromptTooLong(
            field,
            f"The prompt takes up to {tokens} tokens and the model's context is {context}: "
            f"shorten it by {1 - room} tokens or more.",
        )
    if wanted is None:
        return min(DEFAULT_MAX_TOKENS, room)
    if wanted > room:
        raise InvalidField(
            "max_tokens",
            f"Beside the prompt, {room} of the context's {context} tokens are left: "
            f"ask for {room} or fewer, or leave max_tokens out.",
        )
    return wanted


def _prefix(request: Mapping[str, Any], tokens: int) -> tuple[str | None, int]:
    system: list[str] = []
    for message in request.get("messages") or ():
        if message["role"] not in _SYSTEM:
            break
        system.append(message["content"])
    length = sum(_bytes(text) for text in system) // _BYTES_PER_TOKEN
    if cache_key := request.get("cache_key"):
        # Without a system prompt nothing says where the named prefix ends.
        return cache_key, length or tokens // 2
    if not system:
        return None, 0
    return hashlib.sha256("\0".join(system).encode()).hexdigest(), length
