"""The child process: llama.cpp's own HTTP server on a unix socket, run with `python -m`."""

import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from workers.engines.tether import die_with_parent

_WARNINGS = 2


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Arrive on standard input, one line of JSON: the key is for no process list."""

    model: str
    socket: str
    api_key: str
    slots: int
    context_length: int
    threads: int
    batch_tokens: int
    gpu_layers: int
    chat_template: str = ""

    def to_line(self) -> bytes:
        return orjson.dumps(asdict(self)) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        return cls(**orjson.loads(line))


def parameters(settings: ServerSettings) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings.model
    params.model_alias = {"served"}  # else every event repeats the file's path
    params.hostnames = [settings.socket]
    params.api_keys = [settings.api_key]
    params.n_parallel = settings.slots
    params.n_ctx = settings.slots * settings.context_length
    params.n_batch = settings.batch_tokens
    params.n_ubatch = min(settings.batch_tokens, params.n_ubatch)
    params.n_gpu_layers = settings.gpu_layers
    params.chat_template = settings.chat_template
    params.cont_batching = True
    params.kv_unified = False  # 64 unified slots were six times slower
    params.cache_ram_mib = 0
    params.fit_params = False  # a context smaller than promised would refuse prompts that were accepted
    # Each stream holds a thread, also while it queues; /slots must still find one.
    params.n_threads_http = 4 * settings.slots + 8
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings.threads
    params.cpuparams.poll = params.cpuparams_batch.poll = 0
    params.ui = False
    params.verbosity = _WARNINGS
    return params


def main() -> None:
    settings = ServerSettings.from_line(sys.stdin.buffer.readline())
    die_with_parent()
    # A predecessor that was killed leaves its socket behind, and llama.cpp refuses to bind over it.
    Path(settings.socket).unlink(missing_ok=True)
    import xllamacpp

    server = xllamacpp.Server(parameters(settings))
    threading.Event().wait()
    del server


if __name__ == "__main__":
    main()
