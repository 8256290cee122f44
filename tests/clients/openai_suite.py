"""What the unmodified `openai` client can do with a running platform; run by `test_official_clients.py`.

It imports nothing of ours: another environment, with another major version of the client, runs it as well.
"""

import json
import os
import time
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest

QUESTION = [{"role": "user", "content": "How long does a refund take"}]
ENDPOINT: Any = "/v1/chat/completions"
ENDS = {"completed", "failed", "expired", "cancelled"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def connect(key: str = os.environ["SUITE_KEY"], **options: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=os.environ["SUITE_URL"] + "/v1", api_key=key, timeout=60, **options)


@pytest.fixture(scope="module")
def client() -> Iterator[openai.OpenAI]:
    with connect() as client:
        yield client


def test_the_version_is_the_one_that_was_meant() -> None:
    assert openai.__version__.split(".")[0] == os.environ["SUITE_MAJOR"]


def test_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="default", messages=QUESTION, temperature=0, max_tokens=64, stop="\n\n", seed=7, user="u"
    )

    assert "refund" in (answer.choices[0].message.content or "").lower()
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens + answer.usage.completion_tokens == answer.usage.total_tokens > 0
    assert answer.id.startswith("job_")
    assert answer.model == "default"


def test_what_goes_in_extra_body(client: openai.OpenAI) -> None:
    extra = {"service_class": "premium", "priority": 9, "tags": ["client"], "degradation": {"allow": []}}
    raw = client.chat.completions.with_raw_response.create(
        model="default", messages=QUESTION, max_tokens=8, metadata={"ticket": "42"}, extra_body=extra
    )
    job = client.get(f"/jobs/{raw.headers['x-job-id']}", cast_to=object)

    assert job["service_class"] == "premium"
    assert (job["priority"], job["tags"], job["metadata"]) == (9, ["client"], {"ticket": "42"})
    assert raw.parse().id == job["id"]


def test_a_stream_ends_with_its_usage(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="default",
            messages=QUESTION,
            temperature=0,
            max_tokens=64,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    whole = client.chat.completions.create(model="default", messages=QUESTION, temperature=0, max_tokens=64)

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
    assert {chunk.usage for chunk in chunks[:-1]} == {None}


def test_a_stream_that_is_left_takes_its_job_along(client: openai.OpenAI) -> None:
    numbers = {"type": "array", "minItems": 400, "items": {"type": "integer"}}
    stream = client.chat.completions.create(
        model="default",
        messages=QUESTION,
        max_tokens=1500,
        stream=True,
        response_format={"type": "json_schema", "json_schema": {"name": "numbers", "schema": numbers}},
    )
    job_id = next(iter(stream)).id
    stream.close()

    job = client.get(f"/jobs/{job_id}", cast_to=object, options={"params": {"wait": 30}})
    assert job["status"] == "cancelled"


@pytest.mark.parametrize("wrapped", [True, False], ids=["wrapped", "bare"])
def test_an_answer_in_a_schemas_shape(client: openai.OpenAI, *, wrapped: bool) -> None:
    schema = {"enum": ["red", "blue"]}
    shape: Any = {"name": "colour", "strict": True, "schema": schema} if wrapped else schema
    answer = client.chat.completions.create(
        model="default", messages=QUESTION, response_format={"type": "json_schema", "json_schema": shape}
    )

    assert answer.choices[0].message.content in {'"red"', '"blue"'}


def test_log_probabilities(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(
        model="default", messages=QUESTION, max_tokens=4, logprobs=True, top_logprobs=2
    )
    older = client.completions.create(model="default", prompt="How long", max_tokens=4, logprobs=2)

    assert chat.choices[0].logprobs is not None
    entries = chat.choices[0].logprobs.content or []
    assert "".join(entry.token for entry in entries) == chat.choices[0].message.content
    assert all(entry.logprob <= 0 and len(entry.top_logprobs) == 2 for entry in entries)
    assert older.choices[0].logprobs is not None
    assert "".join(older.choices[0].logprobs.tokens or []) == older.choices[0].text


def test_a_completion_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "default",
        "prompt": "How long does a refund take",
        "temperature": 0,
        "max_tokens": 32,
    }
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))

    assert whole.choices[0].text
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert whole.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_models(client: openai.OpenAI) -> None:
    listed = [model.id for model in client.models.list()]

    assert listed == ["default"]
    assert client.models.retrieve("default").id == "default"


def test_the_parsed_helper_takes_a_class(client: openai.OpenAI) -> None:
    from pydantic import BaseModel

    class Refund(BaseModel):
        days: Literal["two", "five"]

    answer = client.chat.completions.parse(
        model="default", messages=QUESTION, response_format=Refund, temperature=0, max_tokens=256
    )

    assert isinstance(answer.choices[0].message.parsed, Refund)


@pytest.mark.parametrize(
    ("changes", "error", "param"),
    [
        ({"n": 2}, openai.UnprocessableEntityError, "n"),
        ({"model": "none"}, openai.UnprocessableEntityError, "model"),
        ({"tools": [TOOL]}, openai.UnprocessableEntityError, "tools"),
        ({"logit_bias": {"1": 1}}, openai.UnprocessableEntityError, "logit_bias"),
        ({"extra_body": {"nonsense": 1}}, openai.UnprocessableEntityError, "nonsense"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 1}}}},
            openai.UnprocessableEntityError,
            "response_format.json_schema.schema",
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_done_is_refused_by_name(
    client: openai.OpenAI, changes: dict[str, Any], error: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(error) as refused:
        client.chat.completions.create(**{"model": "default", "messages": QUESTION, **changes})

    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert refused.value.request_id


def test_each_status_has_its_error() -> None:
    client = connect(max_retries=0)
    later = client.post(
        "/jobs", body={"prompt": "x", "not_before": os.environ["SUITE_LATER"]}, cast_to=object
    )

    with pytest.raises(openai.AuthenticationError) as unknown:
        connect("sk-wrong", max_retries=0).models.list()
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        connect(os.environ["SUITE_ADMIN_KEY"], max_retries=0).models.list()
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve("none")
    with pytest.raises(openai.ConflictError):
        client.delete(f"/jobs/{later['id']}", cast_to=object)
    with pytest.raises(openai.BadRequestError):
        client.post("/files", body={"purpose": "batch"}, cast_to=object)
    with pytest.raises(openai.APIConnectionError):
        openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="x", max_retries=0).models.list()
    client.post(f"/jobs/{later['id']}/cancel", cast_to=object)

    assert unknown.value.type == "authentication_error"
    assert forbidden.value.type == "permission_error"
    assert missing.value.code == "not_found"


def test_a_call_that_may_not_wait_is_repeated_and_then_a_rate_limit(client: openai.OpenAI) -> None:
    tag = f"retried-{openai.__version__}"
    with pytest.raises(openai.RateLimitError) as late:
        connect(max_retries=1).chat.completions.create(
            model="default",
            messages=QUESTION,
            max_tokens=8,
            extra_body={"max_wait_ms": 1, "tags": [tag], "cache": False},
        )
    made = client.get("/jobs", cast_to=object, options={"params": {"tag": tag}})

    assert late.value.code == "queue_timeout"
    assert late.value.type == "rate_limit_error"
    assert int(late.value.response.headers["retry-after"]) >= 1
    assert late.value.response.request.headers["x-stainless-retry-count"] == "1"
    # A call may be refused before it is a job: it is known how long jobs wait.
    assert {job["status"] for job in made["data"]} <= {"cancelled", "expired"}


def test_files_and_their_pages(client: openai.OpenAI) -> None:
    lines = b'{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{}}\n'
    made = [client.files.create(file=(f"in-{n}.jsonl", lines), purpose="batch") for n in range(3)]
    ids = [file.id for file in made]

    assert [file.id for file in client.files.list(limit=1, order="asc") if file.id in ids] == ids
    assert client.files.retrieve(ids[0]).bytes == len(lines)
    assert client.files.content(ids[0]).read() == lines
    assert all(client.files.delete(file_id).deleted for file_id in ids)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(ids[0])


def lines(count: int, **body: Any) -> bytes:
    asked = {"model": "default", "messages": QUESTION, "max_tokens": 16, "temperature": 0} | body
    each = ({"custom_id": f"c{n}", "method": "POST", "url": ENDPOINT, "body": asked} for n in range(count))
    return b"".join(json.dumps(line).encode() + b"\n" for line in each)


def uploaded(client: openai.OpenAI, content: bytes) -> str:
    return client.files.create(file=("in.jsonl", content), purpose="batch").id


def ended(client: openai.OpenAI, batch_id: str) -> Any:
    until = time.monotonic() + 90
    while (batch := client.batches.retrieve(batch_id)).status not in ENDS:
        assert time.monotonic() < until, batch
        time.sleep(0.1)  # the client has nothing to wait on
    return batch


def test_a_batch_to_its_end(client: openai.OpenAI) -> None:
    made = client.batches.create(
        input_file_id=uploaded(client, lines(12)),
        endpoint=ENDPOINT,
        completion_window="24h",
        metadata={"note": "n"},
        extra_body={"service_class": "standard"},
    )
    batch = ended(client, made.id)
    output = client.files.content(batch.output_file_id).read().splitlines()

    assert made.status in {"validating", "in_progress"}
    assert batch.status == "completed"
    assert (batch.request_counts.total, batch.request_counts.completed) == (12, 12)
    assert batch.metadata == {"note": "n"}
    found = [json.loads(line) for line in output]
    assert [line["custom_id"] for line in found] == [f"c{n}" for n in range(12)]
    assert {line["response"]["status_code"] for line in found} == {200}
    assert "refund" in found[0]["response"]["body"]["choices"][0]["message"]["content"].lower()


def test_batches_are_listed_page_by_page(client: openai.OpenAI) -> None:
    file_id = uploaded(client, lines(1))
    made = [
        client.batches.create(input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h").id
        for _ in range(3)
    ]

    assert [batch.id for batch in client.batches.list(limit=1) if batch.id in made] == made[::-1]
    assert {ended(client, batch_id).status for batch_id in made} == {"completed"}


def test_a_batch_is_cancelled(client: openai.OpenAI) -> None:
    numbers = {"type": "array", "minItems": 400, "items": {"type": "integer"}}
    shape = {"type": "json_schema", "json_schema": {"name": "numbers", "schema": numbers}}
    content = lines(200, max_tokens=1500, response_format=shape)
    made = client.batches.create(
        input_file_id=uploaded(client, content), endpoint=ENDPOINT, completion_window="24h"
    )
    cancelled = client.batches.cancel(made.id)

    assert cancelled.status in {"cancelling", "cancelled"}
    assert ended(client, made.id).status == "cancelled"


def test_a_bad_file_fails_its_batch_with_every_bad_line(client: openai.OpenAI) -> None:
    content = lines(2) + b'{"custom_id": "c0"}\nnot json\n' + lines(1, stream=True)
    made = client.batches.create(
        input_file_id=uploaded(client, content), endpoint=ENDPOINT, completion_window="24h"
    )
    batch = ended(client, made.id)

    assert batch.status == "failed"
    assert {problem.line for problem in batch.errors.data} == {3, 4, 5}


def test_what_a_batch_cannot_be_is_refused_by_name(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.batches.create(
            input_file_id="file_1",
            endpoint=ENDPOINT,
            completion_window="8d",  # type: ignore[arg-type]
        )
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_none")

    assert refused.value.param == "completion_window"


async def _ask_in_parallel(count: int) -> list[str]:
    import asyncio

    async with openai.AsyncOpenAI(
        base_url=os.environ["SUITE_URL"] + "/v1", api_key=os.environ["SUITE_KEY"], timeout=60
    ) as client:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(model="default", messages=QUESTION, max_tokens=8)
                for _ in range(count)
            )
        )
    return [answer.id for answer in answers]


def test_the_asynchronous_client() -> None:
    import asyncio

    assert len(set(asyncio.run(_ask_in_parallel(8)))) == 8
