"""How a prompt is written down for an OpenAI-compatible server."""

from dataclasses import dataclass
from typing import Any

import orjson

from queues.requests.json_schemas import is_wrapped, schema_of
from workers.engines.protocol import Prompt, Sampling


@dataclass(frozen=True, slots=True)
class Dialect:
    """Where servers differ from each other."""

    model: str
    repetition_penalty: str = "repetition_penalty"
    template_switches: bool = False
    completion_schemas: bool = False  # llama.cpp ignores `response_format` on /v1/completions, in silence
    schema_as_text: bool = False
    request_ids: bool = False  # SGLang: `rid`, `priority` and `cache_salt`


def request_for(prompt: Prompt, dialect: Dialect) -> tuple[str, dict[str, Any]]:
    """The path under /v1 and the body."""
    body: dict[str, Any] = {
        "model": dialect.model,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_sampling(prompt.sampling, dialect),
        **(_identity(prompt) if dialect.request_ids else {}),
    }
    if prompt.messages is None:
        return "completions", body | {"prompt": prompt.text} | _completion_fields(prompt.sampling, dialect)
    return "chat/completions", body | {"messages": prompt.messages} | _chat_fields(prompt, dialect)


def _identity(prompt: Prompt) -> dict[str, Any]:
    fields: dict[str, Any] = {"rid": prompt.request_id, "priority": prompt.priority}
    return fields | ({"cache_salt": prompt.cache_salt} if prompt.cache_salt else {})


def _sampling(sampling: Sampling, dialect: Dialect) -> dict[str, Any]:
    """Extensions are sent only when asked for: OpenAI itself refuses fields that it does not know."""
    wanted = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "presence_penalty": sampling.presence_penalty or None,
        "frequency_penalty": sampling.frequency_penalty or None,
        dialect.repetition_penalty: None if sampling.repetition_penalty == 1 else sampling.repetition_penalty,
        "stop": list(sampling.stop) or None,
        "seed": sampling.seed,
    }
    return {key: value for key, value in wanted.items() if value is not None}


def _chat_fields(prompt: Prompt, dialect: Dialect) -> dict[str, Any]:
    fields: dict[str, Any] = dict(prompt.tools or {})
    if prompt.sampling.logprobs is not None:
        fields |= {"logprobs": True, "top_logprobs": prompt.sampling.logprobs}
    if prompt.sampling.response_format is not None:
        fields["response_format"] = _wrapped(prompt.sampling.response_format)
    if prompt.reasoning is not None and dialect.template_switches:
        fields["chat_template_kwargs"] = {"enable_thinking": prompt.reasoning, "thinking": prompt.reasoning}
    return fields


def _completion_fields(sampling: Sampling, dialect: Dialect) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if sampling.logprobs is not None:
        fields["logprobs"] = sampling.logprobs
    if sampling.response_format is None:
        return fields
    if not dialect.completion_schemas:
        return fields | {"response_format": _wrapped(sampling.response_format)}
    schema = _schema(sampling.response_format)
    if schema is None:
        return fields
    return fields | {"json_schema": orjson.dumps(schema).decode() if dialect.schema_as_text else schema}


def _wrapped(response_format: dict[str, Any]) -> dict[str, Any]:
    """A bare schema in OpenAI's form: llama.cpp takes one that is not for no schema at all, in silence."""
    match response_format:
        case {"json_schema": dict(given)} if not is_wrapped(given):
            return response_format | {"json_schema": {"name": "answer", "schema": given}}
        case _:
            return response_format


def _schema(response_format: dict[str, Any]) -> dict[str, Any] | None:
    match response_format:
        case {"type": "json_schema", "json_schema": dict(given)}:
            schema: dict[str, Any] | None = schema_of(given)
            return schema
        case {"type": "json_object"}:
            return {"type": "object"}
        case _:
            return None
