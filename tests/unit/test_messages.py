from dataclasses import replace

import orjson
import pytest

from core.errors import InvalidField
from queues.messages import GENERATE, JobEnvelope, decode, encode, task_id


@pytest.fixture
def envelope() -> JobEnvelope:
    return JobEnvelope(
        id="job_1",
        generation=0,
        model="tiny",
        service_class="premium",
        tenant="acme",
        priority=7,
        cost=300,
        arrived=1000.5,
        deadline=1060.0,
        prefix="a1b2",
        prefix_tokens=128,
        trail="AbC0",
        backlog=3,
    )


def test_an_envelope_survives_the_wire(envelope: JobEnvelope) -> None:
    _, kwargs, _ = orjson.loads(encode(envelope).body)

    assert decode(kwargs) == envelope


def test_a_message_is_an_ordinary_celery_task(envelope: JobEnvelope) -> None:
    message = encode(envelope)
    args, kwargs, embed = orjson.loads(message.body)

    assert message.headers["task"] == GENERATE
    assert message.headers["id"] == message.properties["correlation_id"] == "job_1"
    assert message.headers["ignore_result"] is True
    assert message.properties["delivery_mode"] == 2
    assert message.properties["priority"] == 7
    assert (args, set(kwargs)) == ([], {"job"})
    assert set(embed) == {"callbacks", "errbacks", "chain", "chord"}


def test_another_generation_is_another_task(envelope: JobEnvelope) -> None:
    again = replace(envelope, generation=2)

    assert task_id(envelope) == "job_1"
    assert encode(again).headers["id"] == task_id(again) == "job_1.2"


def test_unknown_fields_of_a_newer_minor_version_are_ignored(envelope: JobEnvelope) -> None:
    _, kwargs, _ = orjson.loads(encode(envelope).body)
    kwargs["job"]["colour"] = "green"

    assert decode(kwargs) == envelope


def test_missing_optional_fields_have_defaults() -> None:
    required = {
        "schema": 1,
        "id": "job_1",
        "generation": 0,
        "model": "tiny",
        "service_class": "bulk",
        "tenant": "acme",
        "priority": 0,
        "cost": 1,
        "arrived": 1.0,
    }

    assert decode({"job": required}).deadline is None


@pytest.mark.parametrize("schema", [2, 0, "1", None])
def test_an_unknown_schema_is_refused(envelope: JobEnvelope, schema: object) -> None:
    _, kwargs, _ = orjson.loads(encode(envelope).body)
    kwargs["job"]["schema"] = schema

    with pytest.raises(InvalidField, match="schema"):
        decode(kwargs)


@pytest.mark.parametrize("kwargs", [{}, {"job": None}, {"job": {"schema": 1, "id": "job_1"}}])
def test_an_incomplete_message_is_refused(kwargs: dict[str, object]) -> None:
    with pytest.raises(InvalidField):
        decode(kwargs)
