from typing import Any

import pytest

from core.errors import InvalidField, InvalidFields
from models.catalogue import Catalogue
from queues.requests.capabilities import check_capabilities
from queues.requests.chat_request import chat_to_job
from queues.requests.completion_request import completion_to_job
from queues.requests.openai_request import OpenAIJob

HI = [{"role": "user", "content": "Hi."}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def chat(**fields: Any) -> OpenAIJob:
    return chat_to_job({"model": "default", "messages": HI, **fields})


def completion(**fields: Any) -> OpenAIJob:
    return completion_to_job({"model": "default", "prompt": "Hi.", **fields})


def refused(error: pytest.ExceptionInfo[Any]) -> str:
    value = error.value
    return str(value.problems[0]["field"] if isinstance(value, InvalidFields) else value.field)


def test_a_chat_is_a_job() -> None:
    job = chat(max_completion_tokens=9, temperature=0, stop="x", seed=1, user="u", prompt_cache_key="k")

    assert job.document == {
        "model": "default",
        "messages": HI,
        "max_tokens": 9,
        "temperature": 0,
        "stop": "x",
        "seed": 1,
        "cache_key": "k",
        "metadata": {"user": "u"},
    }
    assert not job.stream


def test_a_completion_is_a_job() -> None:
    job = completion(prompt=["Hi."], logprobs=2, stream=True, stream_options={"include_usage": True})

    assert job.document == {"model": "default", "prompt": "Hi.", "logprobs": 2}
    assert (job.stream, job.include_usage) == (True, True)


def test_extra_body_reaches_the_job() -> None:
    extra = {
        "service_class": "premium",
        "priority": 7,
        "degradation": {"allow": []},
        "webhook": {"url": "https://example.com/hook"},
        "metadata": {"a": "b"},
        "result_ttl": "2h",
        "deadline": "2030-01-01T00:00:00Z",
        "top_k": 3,
    }

    document = chat(**extra).document

    assert {name: document[name] for name in extra} == extra


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"logprobs": True, "top_logprobs": 3}, ("logprobs", 3)),
        ({"logprobs": True}, ("logprobs", 0)),
        ({"reasoning_effort": "none"}, ("reasoning", False)),
        ({"response_format": {"type": "json_object"}}, ("response_format", {"type": "json_object"})),
        ({"tools": [TOOL]}, ("tools", [TOOL])),
    ],
)
def test_a_field_has_its_form_in_the_job(fields: dict[str, Any], expected: tuple[str, Any]) -> None:
    name, value = expected

    assert chat(**fields).document[name] == value


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"n": 2}, "n"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"functions": [{}]}, "functions"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"max_tokens": 3, "max_completion_tokens": 3}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"nonsense": None}, "nonsense"),
        ({"not_before": "2030-01-01T00:00:00Z"}, "not_before"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "function", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"service_tier": "flex"}, "service_tier"),
    ],
)
def test_what_a_chat_cannot_have_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    with pytest.raises((InvalidField, InvalidFields)) as error:
        chat(**fields)

    assert refused(error) == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"n": 3}, "n"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"messages": HI}, "messages"),
    ],
)
def test_what_a_completion_cannot_have_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    with pytest.raises((InvalidField, InvalidFields)) as error:
        completion(**fields)

    assert refused(error) == field


@pytest.mark.parametrize(
    "fields",
    [
        {"logit_bias": {}, "n": 1, "modalities": ["text"], "store": False, "service_tier": "auto"},
        {"logit_bias": None, "stop": None, "tools": None, "stream_options": None, "metadata": None},
        {"user": "u", "safety_identifier": "s", "parallel_tool_calls": True},
    ],
)
def test_what_asks_for_nothing_is_taken(fields: dict[str, Any]) -> None:
    assert chat(**fields).wanted.model == "default"


def test_an_answers_message_goes_back_as_the_client_dumps_it() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    answer = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": [call],
        "reasoning_content": "Hm.",
    }
    told = {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "rain"}]}

    document = chat(messages=[*HI, answer, told]).document

    assert document["messages"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "rain", "tool_call_id": "c1"},
    ]


def test_a_later_check_speaks_of_the_field_that_was_sent() -> None:
    error = chat(max_completion_tokens=5).in_their_words(InvalidField("max_tokens", "Too many."))

    assert error.field == "max_completion_tokens"


def test_tools_need_a_template_that_takes_them() -> None:
    model = Catalogue.bundled().models[0]
    wanted = chat(tools=[TOOL]).wanted

    with pytest.raises(InvalidField, match="takes no tools"):
        check_capabilities(model, wanted)
    check_capabilities(model.model_copy(update={"tools": True}), wanted)
