"""Template answers as operators see and try them."""

from typing import Any, Literal

from pydantic import Field

from api.schemas.job_read import Document
from queues.requests.job_request import Body
from queues.template_book import Listed
from queues.templates import Template


class TemplateTry(Body):
    question: str = Field(min_length=1, max_length=10_000, description="What somebody might ask.")
    metadata: dict[str, str] = Field(default_factory=dict, description="For the fields of the answer.")


class TemplateRead(Document):
    """`source` is file, or admin for one that was set; `hides` that the file has one of this name, too."""

    name: str
    phrases: list[str]
    patterns: list[str]
    answer: str
    fields: list[str]
    source: Literal["file", "admin"]
    hides: bool


class TemplateList(Document):
    object: Literal["list"]
    data: list[TemplateRead]


class TemplateMatch(Document):
    """`answer` is null where no template matches, and where the metadata lacks one of its fields."""

    object: Literal["template_match"]
    name: str | None
    answer: str | None


def render_listed(one: Listed) -> dict[str, Any]:
    source = "admin" if one.is_set else "file"
    return one.template.model_dump(mode="json") | {"source": source, "hides": one.hides}


def render_match(found: Template | None, metadata: dict[str, str]) -> dict[str, Any]:
    answer = found.fill(metadata) if found is not None else None
    return {"object": "template_match", "name": found.name if found else None, "answer": answer}
