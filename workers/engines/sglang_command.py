"""What an entry of the catalogue runs: SGLang's arguments and environment. Pure."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from models.catalogue import SGLangModel
from workers.engines.protocol import DEFAULT_PRIORITY

_PACKAGES: Final = Path(__file__).resolve().parent.parent.parent
_CPU: Final = {
    "device": "cpu",
    "dtype": "float32",
    "attention-backend": "torch_native",
    "sampling-backend": "pytorch",
    "disable-cuda-graph": True,
}
_HIGH_CONCURRENCY: Final = {
    "max-prefill-tokens": 4096,
    "chunked-prefill-size": 512,
    # An H100, 8 B parameters, 1,024 requests at once: 5,500 to 6,200 streamed tokens a second one by one,
    # 11,700 to 12,500 by sixteens, which is what it makes unstreamed.
    "stream-interval": 16,
}


def arguments(model: SGLangModel, *, port: int, api_key: str) -> list[str]:
    """The entry's own `options` win over everything that is derived."""
    own = {_dashed(name): value for name, value in model.options.items()}
    fixed = {
        "model-path": str(model.path),
        "served-model-name": model.name,
        "host": "127.0.0.1",
        "port": port,
        "api-key": api_key,
    }
    return [
        word
        for name, value in (fixed | _derived(model) | _typed(model) | own).items()
        for word in _words(name, value)
    ]


def environment(model: SGLangModel, inherited: Mapping[str, str]) -> dict[str, str]:
    """What is added to the worker's own environment; the entry's `environment` wins."""
    search = os.pathsep.join(filter(None, (str(_PACKAGES), inherited.get("PYTHONPATH"))))
    added = {"PYTHONPATH": search}
    if model.device == "cpu":
        added["SGLANG_USE_CPU_ENGINE"] = "1"
    if model.gpu is not None:
        added["CUDA_VISIBLE_DEVICES"] = model.gpu
    if model.mps_thread_percentage is not None:
        added["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] = str(model.mps_thread_percentage)
    return added | model.environment


def command(model: SGLangModel) -> tuple[str, ...]:
    """The process to start; its arguments follow on standard input."""
    bind = () if model.numa_node is None else _bound_to(model.numa_node)
    return (*bind, str(model.python), "-m", "workers.engines.sglang_server")


def _bound_to(node: int) -> tuple[str, ...]:
    return ("numactl", f"--cpunodebind={node}", f"--membind={node}")


def _derived(model: SGLangModel) -> dict[str, Any]:
    options: dict[str, Any] = {
        "context-length": model.context_length,
        "max-running-requests": model.slots,
        "enable-cache-report": True,
        "enable-metrics": True,
    }
    if model.device == "cpu":
        options |= _CPU
    if model.preset == "high-concurrency":
        options |= _HIGH_CONCURRENCY
    if model.priority_scheduling:
        # Longest-prefix-match ignores priorities; without a default, requests that carry none rank last.
        options |= {
            "enable-priority-scheduling": True,
            "default-priority-value": DEFAULT_PRIORITY,
            # Nobody is thrown out once it runs: its stream would stop, and its prompt be read again.
            "priority-scheduling-preemption-threshold": 100,
            "schedule-policy": "fcfs",
        }
    return options


def _typed(model: SGLangModel) -> dict[str, Any]:
    wanted = {
        "tensor-parallel-size": model.tensor_parallel,
        "quantization": model.quantization,
        "chunked-prefill-size": model.prefill_chunk,
        "max-prefill-tokens": model.batch_tokens,
        "stream-interval": model.stream_interval,
        "mem-fraction-static": model.memory_fraction,
        "max-total-tokens": model.kv_tokens,
        "enable-hierarchical-cache": model.host_cache_ratio is not None,
        "hicache-ratio": model.host_cache_ratio,
        "reasoning-parser": model.reasoning_parser,
        "chat-template": model.chat_template,
        "lora-paths": [f"{name}={path}" for name, path in model.adapters.items()] or None,
    }
    return {name: value for name, value in wanted.items() if value is not None and value is not False}


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _words(name: str, value: Any) -> list[str]:
    """`true` is a bare flag, `false` leaves it out, a list repeats its values."""
    match value:
        case True:
            return [f"--{name}"]
        case False:
            return []
        case list():
            return [f"--{name}", *map(str, value)]
        case _:
            return [f"--{name}", str(value)]
