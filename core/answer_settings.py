"""Settings of kept answers."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from core.setting_types import Duration, Group


class AnswerSettings(Group):
    enabled: bool = Field(
        default=True, description="Keep answers, for the same request and for similar questions."
    )
    exact: Literal["overload", "always"] = Field(
        default="overload",
        description="When the same request at temperature 0 (or one that opted in) gets the kept answer.",
    )
    keep: Duration = Field(default=timedelta(hours=1), description="How long an answer is kept.")
    most: PositiveInt = Field(
        default=10_000, description="Entries kept for one tenant; the oldest leave first."
    )
    min_similarity: float = Field(
        default=0.9, ge=0, le=1, description="How alike a question must be where its caller does not say."
    )
    embedder: Path | None = Field(
        default=None,
        description="Folder of a sentence-transformers model: paraphrases count as similar, too. "
        "Needs the extra `penstock[neural]`.",
    )
    redis_timeout: Duration = Field(
        default=timedelta(milliseconds=100), description="Longest wait for a kept answer."
    )
