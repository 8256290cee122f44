"""Greedy answers of Hugging Face's transformers in 32-bit floats, run by the interpreter that holds it.

One line of JSON on standard input, `{"model": folder, "max_tokens": n, "prompts": […]}`,
gives one on standard output: for each prompt the texts of its answer's tokens, one after another.
"""

import json
import sys
from typing import Any


def main() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked = json.loads(sys.stdin.readline())
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    model = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.float32).eval()

    def answer(prompt: dict[str, Any]) -> list[str]:
        text = prompt.get("text") or tokenizer.apply_chat_template(
            prompt["messages"], tokenize=False, add_generation_prompt=True
        )
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            whole = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=asked["max_tokens"], do_sample=False
            )
        told = whole[0, ids.shape[1] :].tolist()
        return [tokenizer.decode([one]) for one in told if one != model.generation_config.eos_token_id]

    sys.stdout.write(json.dumps([answer(prompt) for prompt in asked["prompts"]]) + "\n")


if __name__ == "__main__":
    main()
