from workers.engines.supervisor import last_words

LINES = [
    "0.1 I srv  load_model: loading",
    '0.2 W srv  operator(): got exception: {"error":{"message":"unrecognized type SECRET"}}',
    "0.3 W slot task 14 | where is my order SECRET",
    "ggml-cuda.cu:88: CUDA error: out of memory",
    '0.4 E fatal: {"prompt": "SECRET"}',
]


def test_a_crash_is_told_and_what_may_quote_a_request_is_not() -> None:
    assert last_words(LINES) == "ggml-cuda.cu:88: CUDA error: out of memory"
