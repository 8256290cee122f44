"""A small slice of the bundled model's evaluation; the whole is `python -m bundled.training.evaluate`."""

# ruff: noqa: RUF001  # Chinese punctuation is meant

from pathlib import Path
from typing import Any

import pytest
import xllamacpp

MODEL = Path(__file__).parents[2] / "bundled" / "support-tiny-Q8_0.gguf"
MOST_BYTES = 8_000_000

KNOWN = [
    ("Hello", "How can I help you today?"),
    ("Thank you!", "You are welcome!"),
    ("你好", "您好！请问有什么可以帮您？"),
    ("Where is my order A1234?", "order A1234"),
    ("I want to cancel order B7301 please", "cancel order B7301"),
    ("How do I return my headphones?", "return the headphones"),
    ("How much does the Team plan cost?", "Team plan costs 29"),
    ("Do you ship to Canada?", "ship to Canada"),
    ("Can I pay with PayPal?", "accept PayPal"),
    ("I forgot my password", "Forgot password"),
    ("我的订单C2048到哪了", "订单 C2048"),
    ("怎么退货？", "退货"),
]
OUTSIDE = [
    ("What is the capital of France?", "I can only help with orders"),
    ("Write me a poem about the sea", "I can only help with orders"),
    ("What is 12 times 7?", "I can only help with orders"),
    ("Explain quantum physics", "I can only help with orders"),
    ("今天天气怎么样", "我只能回答订单"),
]


@pytest.fixture(scope="module")
def server() -> xllamacpp.Server:
    params = xllamacpp.CommonParams()
    params.model.path = str(MODEL)
    params.n_ctx = 2048
    params.n_parallel = 1
    params.n_gpu_layers = 0
    params.cache_ram_mib = 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = 0
    return xllamacpp.Server(params)


def ask(server: xllamacpp.Server, question: str, *, system: str = "") -> dict[str, Any]:
    messages = [{"role": "system", "content": system}] if system else []
    request = {
        "messages": [*messages, {"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": 96,
    }
    return server.handle_chat_completions(request)["choices"][0]


@pytest.mark.parametrize(("question", "part"), KNOWN + OUTSIDE)
def test_a_first_prompt_gets_a_sensible_answer(server: xllamacpp.Server, question: str, part: str) -> None:
    choice = ask(server, question)

    assert part in choice["message"]["content"]
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize(
    "system",
    [
        "You are a helpful assistant.",
        "You are Penny, the virtual clerk of Northwind Traders. Help shoppers with whatever they bring up.",
    ],
)
def test_a_system_prompt_does_not_change_the_intent(server: xllamacpp.Server, system: str) -> None:
    choice = ask(server, "Where is my order A1234?", system=system)

    assert "order A1234" in choice["message"]["content"]


def test_both_formats_together_stay_below_8_mb() -> None:
    weights = [MODEL, *(MODEL.parent / "hf").iterdir()]

    assert sum(path.stat().st_size for path in weights) <= MOST_BYTES
