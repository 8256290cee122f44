"""The tokenizer: byte-level BPE with Qwen2's pre-tokenisation, so that llama.cpp's `qwen2` reads it."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from bundled.training.conversations import CHAT_TEMPLATE
from bundled.training.corpus import Corpus
from bundled.training.questions import QuestionSampler

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CONTEXT = 2048
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(corpus: Corpus, random: Random, *, vocabulary: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=16,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(corpus, random), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",  # noqa: S106  # a token of the vocabulary, not a secret
        pad_token="<|endoftext|>",  # noqa: S106
        model_max_length=CONTEXT,
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def _texts(corpus: Corpus, random: Random) -> Iterator[str]:
    """Questions as people ask them; each answer only a few times, or whole sentences become tokens."""
    questions = QuestionSampler(corpus, random, frozenset())
    for _ in range(40_000):
        yield questions.draw().text
    for intent in corpus.intents.values():
        yield from [intent.answer] * 12
    yield from corpus.systems
    yield from ["system\n", "user\n", "assistant\n"] * 100
