"""What the unmodified `litellm` SDK can do with a running platform; run by `test_official_clients.py`."""

import json
import os
import time
from typing import Any

import litellm
import pytest

QUESTION = [{"role": "user", "content": "How long does a refund take"}]
PLACE: dict[str, Any] = {"api_base": os.environ["SUITE_URL"] + "/v1", "api_key": os.environ["SUITE_KEY"]}


def complete(**options: Any) -> Any:
    asked = {"model": "openai/default", "messages": QUESTION, "temperature": 0, "max_tokens": 64}
    return litellm.completion(**PLACE | asked | options)


def test_a_completion() -> None:
    answer = complete(extra_body={"service_class": "premium"})

    assert "refund" in answer.choices[0].message.content.lower()
    assert answer.usage.total_tokens > 0


def test_a_stream() -> None:
    chunks = list(complete(stream=True, stream_options={"include_usage": True}))

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == complete().choices[0].message.content
    assert chunks[-1].usage.completion_tokens > 0


def test_a_text_completion() -> None:
    answer = litellm.text_completion(
        **PLACE, model="text-completion-openai/default", prompt="How long", max_tokens=8
    )

    assert answer.choices[0].text


def test_refusals_have_their_errors() -> None:
    with pytest.raises(litellm.AuthenticationError):
        complete(api_key="sk-wrong", max_retries=0)
    with pytest.raises(litellm.BadRequestError, match="n: "):
        complete(n=2)
    with pytest.raises(litellm.RateLimitError, match=r"did not start|would start"):
        complete(extra_body={"max_wait_ms": 1, "cache": False}, max_retries=0)


def test_a_file_and_its_batch() -> None:
    body = {"model": "default", "messages": QUESTION, "max_tokens": 8}
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    content = json.dumps(line).encode() + b"\n"
    place = PLACE | {"custom_llm_provider": "openai"}
    file = litellm.create_file(file=("in.jsonl", content), purpose="batch", **place)
    made = litellm.create_batch(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", **place
    )
    until = time.monotonic() + 90
    while (batch := litellm.retrieve_batch(batch_id=made.id, **place)).status != "completed":
        assert time.monotonic() < until, batch
        time.sleep(0.1)  # the client has nothing to wait on

    assert litellm.file_content(file_id=file.id, **place).content == content
    output = litellm.file_content(file_id=batch.output_file_id, **place).content
    assert json.loads(output)["response"]["body"]["choices"][0]["message"]["content"]
