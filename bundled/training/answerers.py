"""The same greedy question put to llama.cpp and to the Hugging Face reference."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Messages = list[dict[str, str]]
LONGEST_ANSWER = 96  # tokens; the longest reference answer has about 60


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    stopped: bool


class LlamaCpp:
    """llama.cpp inside this process, one question at a time: greedy answers are then exact."""

    def __init__(self, model: Path) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_ctx = 2048
        params.n_parallel = 1
        params.n_gpu_layers = 0
        params.cache_ram_mib = 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.verbosity = 0
        self._server = xllamacpp.Server(params)

    def answer(self, conversations: Sequence[Messages]) -> list[Answer]:
        return [self._one(messages) for messages in conversations]

    def _one(self, messages: Messages) -> Answer:
        request = {"messages": messages, "temperature": 0, "max_tokens": LONGEST_ANSWER}
        choice = self._server.handle_chat_completions(request)["choices"][0]
        return Answer(choice["message"]["content"].strip(), choice["finish_reason"] == "stop")


class HuggingFace:
    """transformers in 32-bit on the CPU: the reference."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._torch = torch
        self._tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def answer(self, conversations: Sequence[Messages]) -> list[Answer]:
        parts = (conversations[start : start + 64] for start in range(0, len(conversations), 64))
        return [answer for part in parts for answer in self._batch(part)]

    def _batch(self, conversations: Sequence[Messages]) -> list[Answer]:
        prompts = [
            self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            for messages in conversations
        ]
        inputs = self._tokenizer(prompts, return_tensors="pt", padding=True)
        with self._torch.no_grad():
            output = self._model.generate(**inputs, max_new_tokens=LONGEST_ANSWER, do_sample=False)
        return [self._decode(ids) for ids in output[:, inputs["input_ids"].shape[1] :]]

    def _decode(self, ids: Any) -> Answer:
        stopped = self._tokenizer.eos_token_id in ids.tolist()
        return Answer(self._tokenizer.decode(ids, skip_special_tokens=True).strip(), stopped)
