"""What is read from a message of any age: the job that it names, or nothing."""

import pytest

from queues.messages import JobEnvelope, decode, encode, identity

ENVELOPE = JobEnvelope("job_1", 4, "tiny", "bulk", "acme", 5, 10, 1.0, attempts=2, strikes=1)


def test_a_message_names_its_job_and_generation() -> None:
    assert identity(encode(ENVELOPE).body) == ("job_1", 4)


def test_a_message_of_a_newer_schema_still_names_its_job() -> None:
    assert identity(b'[[], {"job": {"schema": 9, "id": "job_1", "generation": 4, "new": {}}}, {}]') == (
        "job_1",
        4,
    )


@pytest.mark.parametrize(
    "body", [b"", b"no", b"[]", b"[[], {}]", b'[[], {"job": {"id": "job_1"}}]', b'[[], {"job": 7}]', b"\xff"]
)
def test_what_names_no_job_is_nothing(body: bytes) -> None:
    assert identity(body) is None


def test_a_worker_reads_messages_of_relays_before_and_after_attempts_were_told() -> None:
    new = {"schema": 1, "id": "job_1", "generation": 4, "model": "tiny", "service_class": "bulk"}
    new |= {"tenant": "acme", "priority": 5, "cost": 10, "arrived": 1.0}

    assert decode({"job": new}).attempts == 0
    assert decode({"job": new | {"attempts": 2, "strikes": 1}}) == ENVELOPE
