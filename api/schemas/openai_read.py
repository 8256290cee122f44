"""What OpenAI's clients are told beside an answer."""

from typing import Any, Literal

from api.schemas.job_read import Document


class ModelRead(Document):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelPage(Document):
    object: Literal["list"]
    data: list[ModelRead]


class CompletionRead(Document):
    """OpenAI's; `degradation` is ours."""

    id: str
    object: Literal["chat.completion", "text_completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any]
    degradation: dict[str, Any]
