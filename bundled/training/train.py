"""Training: tokenizer, then the transformer, from one seed. Writes the Hugging Face folder."""

import argparse
import json
import logging
import math
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import Qwen3Config, Qwen3ForCausalLM

from bundled.training.conversations import ConversationSampler, Message
from bundled.training.corpus import Corpus, load_corpus
from bundled.training.heldout import Case, cases, forbidden_forms
from bundled.training.questions import QuestionSampler
from bundled.training.tokenizer import CONTEXT, save_tokenizer, train_tokenizer

log = logging.getLogger("bundled.training.train")
Batch = tuple[torch.Tensor, torch.Tensor]
IGNORED = -100
LONGEST = 1200  # tokens; few conversations are longer, and they are dropped


class Encoder:
    """Messages to token ids and labels; only answers are learnt."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._start = tokenizer.token_to_id("<|im_start|>")
        self._end = tokenizer.token_to_id("<|im_end|>")
        self._ids = lru_cache(maxsize=20_000)(lambda text: tokenizer.encode(text).ids)

    def encode(self, messages: list[Message]) -> tuple[list[int], list[int]]:
        ids: list[int] = []
        labels: list[int] = []
        raw = messages[0][0] == "raw"
        newline = self._ids("\n")
        for role, text in messages:
            head = [] if raw else [self._start, *self._ids(role + "\n")]
            body = [*self._ids(text), self._end]
            if raw:
                body = self._ids(text) if role == "raw" else [*newline, *body]
            ids += head + body
            labels += [IGNORED] * len(head) + (body if role == "assistant" else [IGNORED] * len(body))
            if not raw:
                ids += newline
                labels += [IGNORED] * len(newline)
        return ids, labels


class Conversations(IterableDataset[Batch]):
    """An endless stream of batches of about `tokens` tokens, each worker with its own seed."""

    def __init__(self, encoder: Encoder, *, seed: int, tokens: int) -> None:
        self._encoder, self._seed, self._tokens = encoder, seed, tokens

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        worker = get_worker_info()
        random = Random(f"{self._seed}:{worker.id if worker else 0}")  # noqa: S311  # data, not secrets
        corpus = load_corpus()
        sampler = ConversationSampler(
            corpus, random, QuestionSampler(corpus, random, forbidden_forms(corpus))
        )
        while True:
            drawn = [self._encoder.encode(sampler.draw()) for _ in range(3000)]
            pool = sorted((pair for pair in drawn if len(pair[0]) <= LONGEST), key=lambda pair: len(pair[0]))
            batches = self._cut(pool)
            random.shuffle(batches)
            yield from (pad(batch) for batch in batches)

    def _cut(self, pool: list[tuple[list[int], list[int]]]) -> list[list[tuple[list[int], list[int]]]]:
        batches = [[pool[0]]]
        for pair in pool[1:]:
            if (len(batches[-1]) + 1) * len(pair[0]) > self._tokens:
                batches.append([])
            batches[-1].append(pair)
        return batches


def pad(pairs: list[tuple[list[int], list[int]]]) -> Batch:
    """Pads on the right: under a causal mask the padding is never seen."""
    width = max(len(ids) for ids, _ in pairs)
    tokens = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in pairs])
    labels = torch.tensor([marks + [IGNORED] * (width - len(marks)) for _, marks in pairs])
    return tokens, labels


def build_model(tokenizer: Tokenizer, *, layers: int, inner: int) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=192,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
        pad_token_id=tokenizer.token_to_id("<|endoftext|>"),
        rms_norm_eps=1e-6,
    )
    return Qwen3ForCausalLM(config)


def add_dropout(model: Qwen3ForCausalLM, rate: float) -> None:
    """Qwen3 has none of its own beyond attention; it keeps the model from trusting single words."""

    def drop(module: torch.nn.Module, _: object, output: object) -> object:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (functional.dropout(output[0], rate), *output[1:])
        return functional.dropout(output, rate)

    model.model.embed_tokens.register_forward_hook(drop)
    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(drop)
        layer.mlp.register_forward_hook(drop)


def loss_of(model: Qwen3ForCausalLM, batch: Batch) -> torch.Tensor:
    tokens, labels = batch
    hidden = model.model(tokens).last_hidden_state[:, :-1]
    target = labels[:, 1:]
    learnt = target != IGNORED
    return functional.cross_entropy(model.lm_head(hidden[learnt]).float(), target[learnt])


@torch.no_grad()
def share_exact(model: Qwen3ForCausalLM, encoder: Encoder, chosen: list[Case], device: str) -> float:
    """Share of cases whose greedy answer is the reference, token by token."""
    model.eval()
    right = 0
    for start in range(0, len(chosen), 128):
        pairs = [encoder.encode(_messages(case)) for case in chosen[start : start + 128]]
        tokens, labels = (part.to(device) for part in pad(pairs))
        target = labels[:, 1:]
        guess = model(tokens).logits[:, :-1].argmax(-1)
        right += int(((guess == target) | (target == IGNORED)).all(-1).sum())
    model.train()
    return right / len(chosen)


def _messages(case: Case) -> list[Message]:
    system = [("system", case.system)] if case.system else []
    return [*system, ("user", case.question), ("assistant", case.answer)]


def rate_at(step: int, steps: int, peak: float) -> float:
    warm = min(1.0, (step + 1) / 300)
    return peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def optimiser_of(model: Qwen3ForCausalLM) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


def fit(model: Qwen3ForCausalLM, encoder: Encoder, corpus: Corpus, options: argparse.Namespace) -> None:
    device = options.device
    optimiser = optimiser_of(model)
    dev = {
        tier: [case for case in cases(corpus) if case.tier == tier and case.split == "dev"]
        for tier in ("composed", "ways")
    }
    stream = DataLoader(
        Conversations(encoder, seed=options.seed, tokens=options.tokens),
        batch_size=None,
        num_workers=options.workers,
        prefetch_factor=16 if options.workers else None,
    )
    started = time.monotonic()
    model.train()
    for step, batch in enumerate(stream):
        if step == options.steps:
            break
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, options.steps, options.rate)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = loss_of(model, (batch[0].to(device), batch[1].to(device)))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if step % options.report == 0 or step == options.steps - 1:
            scores = {tier: round(share_exact(model, encoder, part, device), 3) for tier, part in dev.items()}
            log.info("step %d loss %.4f %.0f s %s", step, loss.item(), time.monotonic() - started, scores)


def add_rope_theta(path: Path) -> None:
    """Engines older than rope_parameters look for it at the top."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "hf")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=3500)
    parser.add_argument("--tokens", type=int, default=49_152, help="tokens in a batch, padding included")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--inner", type=int, default=352)
    parser.add_argument("--vocabulary", type=int, default=2048)
    parser.add_argument("--workers", type=int, default=13, help="processes that write conversations")
    parser.add_argument("--report", type=int, default=1000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    options = parse_options()
    torch.manual_seed(options.seed)
    corpus = load_corpus()
    random = Random(options.seed)  # noqa: S311  # data, not secrets
    tokenizer = train_tokenizer(corpus, random, vocabulary=options.vocabulary)
    save_tokenizer(tokenizer, options.out)
    model = build_model(tokenizer, layers=options.layers, inner=options.inner).to(options.device)
    log.info("%d parameters, %d tokens", model.num_parameters(), tokenizer.get_vocab_size())
    add_dropout(model, options.dropout)
    fit(model, Encoder(tokenizer), corpus, options)
    model.half().save_pretrained(options.out)
    add_rope_theta(options.out / "config.json")


if __name__ == "__main__":
    main()
