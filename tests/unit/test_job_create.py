"""What a submission may hold, and what it is told when it holds something else."""

import asyncio
from typing import Any

import orjson
import pytest
from starlette.requests import Request

from api.errors import Problem, describe
from api.json_body import read_json
from core.errors import InvalidField, PromptTooLong
from models.catalogue import Catalogue
from queues.prompts import Demand, PromptMeter, fingerprint
from queues.requests.job_request import JobCreate
from queues.requests.validation import validate

USER = {"role": "user", "content": "Hi."}


def body_of(raw: bytes) -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": raw, "more_body": False}

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


def judged(raw: bytes) -> Problem:
    try:
        validate(JobCreate, asyncio.run(read_json(body_of(raw))))
    except Exception as error:  # noqa: BLE001 - the edge under test
        return describe(error)
    raise AssertionError("was accepted")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "x", "messages": [USER]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role"),
        ({"messages": [USER, {"role": "user", "content": ""}]}, "messages.1.content"),
        ({"messages": [{**USER, "colour": "x"}]}, "messages.0.colour"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "x", "max_tokens": "5"}, "max_tokens"),
        ({"prompt": "x", "max_tokens": True}, "max_tokens"),
        ({"prompt": "x", "temperature": 2.1}, "temperature"),
        ({"prompt": "x", "top_p": 0}, "top_p"),
        ({"prompt": "x", "top_k": 0}, "top_k"),
        ({"prompt": "x", "min_p": -1}, "min_p"),
        ({"prompt": "x", "presence_penalty": 3}, "presence_penalty"),
        ({"prompt": "x", "frequency_penalty": -3}, "frequency_penalty"),
        ({"prompt": "x", "repetition_penalty": 0}, "repetition_penalty"),
        ({"prompt": "x", "logprobs": 21}, "logprobs"),
        ({"prompt": "x", "seed": -1}, "seed"),
        ({"prompt": "x", "stop": [""]}, "stop.0"),
        ({"prompt": "x", "stop": ["a"] * 9}, "stop"),
        ({"prompt": "x", "service_class": "gold"}, "service_class"),
        ({"prompt": "x", "priority": 10}, "priority"),
        ({"prompt": "x", "max_wait_ms": 0}, "max_wait_ms"),
        ({"prompt": "x", "deadline": "tomorrow"}, "deadline"),
        ({"prompt": "x", "deadline": 1900000000}, "deadline"),
        ({"prompt": "x", "deadline": "2030-01-01T00:00:00"}, "deadline"),
        ({"prompt": "x", "deadline": "2030-13-01T00:00:00Z"}, "deadline"),
        ({"prompt": "x", "not_before": "9999-12-31T23:59:59-23:00"}, "not_before"),
        ({"prompt": "x", "result_ttl": "1s"}, "result_ttl"),
        ({"prompt": "x", "result_ttl": "9" * 400 + "d"}, "result_ttl"),
        ({"prompt": "x", "result_ttl": 5}, "result_ttl"),
        ({"prompt": "x", "cache_key": ""}, "cache_key"),
        ({"prompt": "x", "degradation": {"allow": ["magic"]}}, "degradation.allow.0"),
        ({"prompt": "x", "degradation": {"min_similarity": 2}}, "degradation.min_similarity"),
        ({"prompt": "x", "response_format": {"type": "xml"}}, "response_format.type"),
        ({"prompt": "x", "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"prompt": "x", "response_format": {"type": "text", "json_schema": {}}},
            "response_format.json_schema",
        ),
        ({"prompt": "x", "reasoning": "yes"}, "reasoning"),
        ({"prompt": "x", "metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"prompt": "x", "metadata": {"a": 1}}, "metadata.a"),
        ({"prompt": "x", "tags": ["t"] * 17}, "tags"),
        ({"prompt": "x", "tags": ["a\nb"]}, "tags.0"),
        ({"prompt": "x", "webhook": {"to": "https://example.com"}}, "webhook.url"),
        ({"prompt": "x\0"}, "prompt"),
        ({"prompt": "x", "metadata": {"a\0": "b"}}, "metadata.a"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named(fields: dict[str, Any], named: str) -> None:
    problem = judged(orjson.dumps(fields))

    assert problem.status == 422
    assert named in [error["field"] for error in problem.errors]


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b'{"prompt": "x", "temperature": NaN}', "temperature"),
        (b'{"prompt": "x", "temperature": Infinity}', "temperature"),
        (b'{"prompt": "x", "top_p": 1e400}', "top_p"),
        (b'{"prompt": "\\ud800"}', "prompt"),
        (b'{"prompt": "x", "seed": 1000000000000000000000000000000}', "seed"),
        (b'{"messages": [{"role": "user", "content": "\\u0000"}]}', "messages.0.content"),
        (b"[]", "body"),
        (b'"x"', "body"),
    ],
)
def test_what_json_cannot_carry_on_is_named(raw: bytes, named: str) -> None:
    problem = judged(raw)

    assert problem.status == 422
    assert problem.errors[0]["field"] == named


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": 1' + b"0" * 5000, b"prompt=x", b'{"a":}']
)
def test_what_is_no_json_is_400(raw: bytes) -> None:
    assert judged(raw).status == 400


def test_an_unknown_field_is_named_with_its_neighbour() -> None:
    problem = judged(b'{"prompt": "x", "max_token": 5}')

    assert problem.errors == [{"field": "max_token", "message": "Unknown field; did you mean max_tokens?"}]


def test_values_are_never_repeated() -> None:
    raw = orjson.dumps(
        {"prompt": ["hunter2"], "deadline": "hunter2", "tags": "hunter2", "stop": {"hunter2": 1}}
    )

    assert "hunter2" not in str(judged(raw).body(instance=""))


def test_many_mistakes_make_a_short_answer() -> None:
    problem = judged(orjson.dumps({f"field{n}": n for n in range(50_000)}))

    assert len(problem.errors) <= 20


def test_a_schema_may_not_be_nested_without_end() -> None:
    deep: dict[str, Any] = {}
    for _ in range(70):
        deep = {"a": deep}
    raw = orjson.dumps({"prompt": "x", "response_format": {"type": "json_schema", "json_schema": deep}})

    assert judged(raw).errors[0]["field"] == "response_format.json_schema"


def shaped(json_schema: Any) -> bytes:
    shape = {"type": "json_schema", "json_schema": json_schema}
    return orjson.dumps({"prompt": "x", "response_format": shape})


@pytest.mark.parametrize(
    ("schema", "wrong"),
    [
        ({"type": "hunter2"}, "type must be a type of JSON Schema"),
        ({"properties": {"age": {"minimum": "hunter2"}}}, "properties.age.minimum must be of type number"),
        ({"required": ["hunter2", "hunter2"]}, "required must not repeat an item"),
        ({"minLength": -1}, "minLength must be at least 0"),
        ({"items": [{"type": "string"}]}, "items must be of type boolean or object"),
        ({"$schema": "http://127.0.0.1:9/hunter2", "type": 1}, "type must be a type of JSON Schema"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": 1}, "type must be a type"),
        ({"items": {"minLength": 5, "maxLength": 2}}, "minLength is above maxLength"),
        ({"anyOf": [{"minItems": 5, "maxItems": 2}]}, "minItems is above maxItems"),
    ],
)
def test_a_schema_that_is_none_is_refused_with_what_is_wrong(schema: dict[str, Any], wrong: str) -> None:
    wrapped = judged(shaped({"name": "answer", "schema": schema}))
    bare = judged(shaped(schema))

    assert [error["field"] for error in wrapped.errors] == ["response_format.json_schema.schema"]
    assert [error["field"] for error in bare.errors] == ["response_format.json_schema"]
    for problem in (wrapped, bare):
        assert problem.status == 422
        assert wrong in problem.errors[0]["message"]
        assert "hunter2" not in str(problem.body(instance=""))


@pytest.mark.parametrize(
    "json_schema", [{"name": "answer"}, {"schema": True}, {"schema": "x"}, {"schema": None}]
)
def test_openais_form_has_a_schema(json_schema: dict[str, Any]) -> None:
    problem = judged(shaped(json_schema))

    assert [error["field"] for error in problem.errors] == ["response_format.json_schema.schema"]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": ["string", "null"], "pattern": "^[\\w-.]+$", "$ref": "http://127.0.0.1:9/other"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "string"}]},
        {"$schema": "https://json-schema.org/draft/2020-12/schema", "prefixItems": [{"type": "string"}]},
        {"$defs": {"a": {"type": "object", "additionalProperties": False}}, "$ref": "#/$defs/a"},
        {"description": "A colour.", "enum": ["red", 2**70, {"minItems": 2, "maxItems": 1}]},
    ],
)
def test_a_sound_schema_is_taken_bare_and_in_openais_form(schema: dict[str, Any]) -> None:
    for given in (schema, {"name": "answer", "strict": True, "schema": schema}):
        wanted = validate(
            JobCreate, {"prompt": "x", "response_format": {"type": "json_schema", "json_schema": given}}
        )

        assert wanted.response_format is not None
        assert wanted.response_format.json_schema == given


def measured(**request: Any) -> Demand:
    return asyncio.run(PromptMeter().measure(Catalogue.bundled().get(None), request))


def test_a_short_prompt_is_not_counted_and_gets_the_default() -> None:
    demand = measured(prompt="Hello.")

    assert demand.max_tokens == 256
    assert demand.cost == demand.prompt_tokens + 256


def test_a_prompt_that_leaves_no_room_is_refused_by_name() -> None:
    with pytest.raises(PromptTooLong) as refused:
        measured(messages=[{"role": "user", "content": "zebra quartz " * 3000}])

    assert refused.value.field == "messages"
    assert "2048" in str(refused.value)


def test_an_explicit_wish_is_refused_and_the_default_shrinks() -> None:
    prompt = "password " * 1900  # about one token each
    with pytest.raises(InvalidField) as refused:
        measured(prompt=prompt, max_tokens=256)

    assert refused.value.field == "max_tokens"
    assert 0 < measured(prompt=prompt).max_tokens < 256


def test_jobs_with_one_system_prompt_are_one_group() -> None:
    system = {"role": "system", "content": "You are helpful. " * 10}
    one, two = measured(messages=[system, USER]), measured(messages=[system, {**USER, "content": "Bye."}])

    assert one.prefix == two.prefix is not None
    assert len(one.prefix) == 64
    assert one.prefix_tokens > 0
    assert measured(messages=[USER]).prefix is None
    assert measured(messages=[USER], cache_key="k").prefix == "k"


def test_a_prompt_that_names_no_beginning_is_known_by_how_it_begins() -> None:
    long = {"role": "user", "content": "The rules of the house are these. " * 20}
    one, two = measured(messages=[long, USER]), measured(messages=[long, {**USER, "content": "Bye."}])

    assert one.prefix is None
    assert one.trail == two.trail is not None
    assert measured(messages=[USER]).trail is None
    assert measured(prompt=long["content"]).trail is not None
    assert measured(messages=[long], cache_key="k").trail is None
    assert measured(messages=[{**long, "role": "system"}, USER]).trail is None


def test_a_fingerprint_ignores_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert len(fingerprint({})) == 32
