"""Folders that SGLang loads with random weights: a configuration, and a tokenizer trained on the spot.

Every id of the vocabulary has a text, so that each token streams as one would of a trained model. There is no
end token: random weights would find it at random, and answers of unequal length compare nothing.
"""

import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

_TRAINED: Final = 16_384
_FILES: Final = 400
_CONFIGURATIONS: Final[dict[str, dict[str, Any]]] = {
    "0.5b": {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
        "rope_theta": 1_000_000.0,
        "rms_norm_eps": 1e-6,
    },
    "8b": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128_256,
        "tie_word_embeddings": False,
        "rope_theta": 500_000.0,
        "rms_norm_eps": 1e-5,
    },
    # Seconds on a CPU: to try this benchmark where there is no GPU.
    "tiny": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 20_000,
        "tie_word_embeddings": False,
        "rope_theta": 10_000.0,
        "rms_norm_eps": 1e-5,
    },
}
_SHARED: Final = {
    "hidden_act": "silu",
    "max_position_embeddings": 32_768,
    "initializer_range": 0.02,
    "dtype": "bfloat16",
    "bos_token_id": None,
    "eos_token_id": None,
}


def make(name: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    configuration = _CONFIGURATIONS[name] | _SHARED
    (folder / "config.json").write_text(json.dumps(configuration))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(configuration["vocab_size"])))
    named = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 32_768}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def corpus() -> Iterator[str]:
    """The standard library's own source: text that every machine has."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:_FILES]:
        yield path.read_text(encoding="utf-8", errors="replace")


def _tokenizer(vocabulary: int) -> dict[str, Any]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=_TRAINED, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(corpus(), trainer)
    document: dict[str, Any] = json.loads(tokenizer.to_str())
    words = document["model"]["vocab"]
    words |= {f"Ġw{number}": number for number in range(len(words), vocabulary)}
    return document
