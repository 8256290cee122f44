"""Settings of HTTP itself: how answers travel, and how long connections stay."""

from typing import Literal

from pydantic import Field, NonNegativeInt

from core.setting_types import Group


class CompressionSettings(Group):
    encodings: tuple[Literal["br", "gzip"], ...] = Field(
        default=("br", "gzip"),
        description='Encodings that a client may ask for, Brotli before gzip; `["gzip"]` or `[]` for fewer.',
    )
    minimum_size: NonNegativeInt = Field(
        default=1400,
        description="Bytes below which an answer, but not a stream, goes as it is: it fits into one packet.",
    )
    brotli_quality: int = Field(
        default=3,
        ge=0,
        le=11,
        description="Brotli's effort. A stream holds 0.3 MB at 3, 0.6 MB at 4, 1.1 MB at 5.",
    )
    gzip_level: int = Field(default=1, ge=0, le=9, description="gzip's effort. A stream holds 0.1 MB.")
