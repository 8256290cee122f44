"""Questions as vectors: how alike two are. Without a model nobody asks, and only the same words are alike."""

import base64
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from core.errors import ConfigurationMistake

_LONGEST: Final = 512  # characters: what is longer is cut by the models, too


class Embedder(Protocol):
    """`embed` computes for milliseconds, so it belongs into a thread; the vector has the length one."""

    def embed(self, text: str) -> Sequence[float]: ...


class SentenceEmbedder:
    """A sentence-transformers model in a local folder: nothing is downloaded."""

    def __init__(self, folder: Path) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(1)  # a question is short, and the other CPUs have work
        self._model: Any = SentenceTransformer(str(folder), device="cpu", local_files_only=True)

    def embed(self, text: str) -> Sequence[float]:
        found = self._model.encode([text[:_LONGEST]], normalize_embeddings=True, show_progress_bar=False)
        return [float(value) for value in found[0]]


def open_embedder(folder: Path | None) -> Embedder | None:
    """None where none is set. Raises `ConfigurationMistake` where the extra or the model is missing."""
    if folder is None:
        return None
    if not (folder / "modules.json").is_file():
        raise ConfigurationMistake(
            f"PENSTOCK_ANSWERS__EMBEDDER: {folder} holds no sentence-transformers model (modules.json). "
            "Name the folder of one, or leave it out."
        )
    try:
        return SentenceEmbedder(folder)
    except ImportError as error:
        raise ConfigurationMistake(
            "PENSTOCK_ANSWERS__EMBEDDER needs the extra: pip install 'penstock[neural]'."
        ) from error


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    """Of two vectors of the length one; 0 where they come from different models."""
    if len(first) != len(second):
        return 0.0
    return sum(a * b for a, b in zip(first, second, strict=True))


def packed(vector: Sequence[float]) -> str:
    """Half precision as text: a kilobyte for 384 numbers, where JSON takes eight."""
    return base64.b85encode(struct.pack(f"<{len(vector)}e", *vector)).decode()


def unpacked(text: str) -> Sequence[float]:
    raw = base64.b85decode(text)
    return struct.unpack(f"<{len(raw) // 2}e", raw)
