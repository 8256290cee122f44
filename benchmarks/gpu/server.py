"""An SGLang server for the benchmark: what a catalogue entry renders, started, watched and ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import httpx

from models.catalogue import SGLangModel
from workers.engines.sglang_command import arguments, command, environment

KEY: Final = "benchmark"
_START: Final = 300.0  # seconds
_BATCHES: Final = [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 640, 768, 896, 1024]
_PREFILLS: Final = [64, 128, 256, 512, 1024, 2048, 4096, 8192]


@dataclass(frozen=True, slots=True)
class Place:
    """Where SGLang is on this machine. `packages` go in front of its interpreter's own.

    The device `timetable` is no SGLang: a server that keeps its timetable (see timetable.py).
    """

    python: Path
    device: str = "cuda"
    packages: Path | None = None
    port: int = 30_111
    pace: str = "8b"  # of a timetable

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        if self.packages is None:
            return {}
        root = Path(__file__).resolve().parents[2]
        found = {
            "PYTHONPATH": f"{root}{os.pathsep}{self.packages / 'site'}",
            "TVM_FFI_CACHE_DIR": str(self.packages / "tvmcache"),
        }
        cuda = next((p for p in (Path("/usr/local/cuda-13.0"), Path("/usr/local/cuda")) if p.exists()), None)
        if cuda is not None:
            found |= {"CUDA_HOME": str(cuda), "LIBRARY_PATH": f"{cuda / 'lib64'}:{cuda / 'lib'}"}
        return found


def entry(place: Place, model: Path, *, running: int = 1024, **more: Any) -> SGLangModel:
    """Random weights in bf16, and CUDA graphs up to as many requests as may run."""
    cuda = {
        "dtype": "bfloat16",
        "sampling-backend": "pytorch",
        "cuda-graph-bs-decode": [size for size in _BATCHES if size <= running],
        "cuda-graph-bs-prefill": _PREFILLS,
    }
    options: dict[str, Any] = {"load-format": "dummy", "random-seed": 1, "load-snapshot-publish-interval": 1}
    options |= cuda if place.device == "cuda" else {}
    return SGLangModel.model_validate(
        {
            "name": "m",
            "engine": "sglang",
            "path": str(model),
            "python": place.python,
            "device": "cuda" if place.device == "cuda" else "cpu",
            "port": place.port,
            "slots": running,
            "context_length": 8192,
            "chat": False,
            "memory_fraction": 0.8 if place.device == "cuda" else 0.3,
            "environment": {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"} | place.environment(),
            "options": options | more.pop("options", {}),
        }
        | more
    )


@dataclass
class Server:
    """One life of it, or several."""

    model: SGLangModel
    log: Path
    place: Place
    started_in: list[float] = field(default_factory=list)
    _is_ready: bool = False
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.model.port}"

    @property
    def is_up(self) -> bool:
        return self._process is not None

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def launch(self) -> None:
        words = arguments(self.model, port=self.model.port or 0, api_key=KEY)
        argv = command(self.model) if self.place.device != "timetable" else self._timetable()
        with self.log.open("ab") as log:
            self._process = _spawn(argv, environment(self.model, os.environ), log)
        assert self._process.stdin is not None  # noqa: S101 - asked for
        self._process.stdin.write("\0".join(words).encode() + b"\n")
        self._process.stdin.flush()
        self._launched = time.monotonic()

    def _timetable(self) -> tuple[str, ...]:
        interval = str(self.model.options.get("stream-interval", 1))
        paced = ("--model", self.place.pace, "--slots", str(self.model.slots), "--stream-interval", interval)
        return (sys.executable, "-m", "benchmarks.gpu.timetable", "--port", str(self.model.port), *paced)

    def wait(self) -> None:
        if self._is_ready:
            return
        end = self._launched + _START
        while time.monotonic() < end:
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(
                    f"SGLang ended at its start:\n{self.log.read_text(errors='replace')[-3000:]}"
                )
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", headers=HEADERS, timeout=5).status_code == 200:
                    self.started_in.append(round(time.monotonic() - self._launched, 1))
                    self._is_ready = True
                    return
            time.sleep(0.25)
        raise TimeoutError(f"SGLang was not ready within {_START:.0f} s")

    def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process, self._is_ready = None, False


HEADERS: Final = {"Authorization": f"Bearer {KEY}"}


@contextmanager
def serving(model: SGLangModel, log: Path, *, place: Place) -> Iterator[Server]:
    server = Server(model, log, place)
    try:
        server.launch()
        server.wait()
        yield server
    finally:
        server.kill()


def _spawn(argv: tuple[str, ...], environ: Mapping[str, str], log: IO[bytes]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=os.environ | dict(environ),
        start_new_session=True,
        cwd=Path(__file__).resolve().parents[2],
    )
