"""Where SGLang is on this machine, and how the command line says so."""

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.gpu.server import Place


def add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", choices=("8b", "0.5b", "tiny"), default="8b")
    parser.add_argument("--device", choices=("cuda", "cpu", "timetable"), default="cuda")
    parser.add_argument("--prefix", type=Path, help="where setup.sh put everything")
    parser.add_argument("--python", type=Path, help="the interpreter that has SGLang's torch")
    parser.add_argument("--stream-interval", type=int, help="SGLang's own: tokens per streamed piece")
    parser.add_argument("--tokenizers", type=int, help="SGLang's own: processes that speak HTTP and tokenize")


def place_of(given: argparse.Namespace) -> Place:
    if given.prefix is None:
        python = Path(given.python or shutil.which("python3") or "python3")
        return Place(python.absolute(), given.device, pace=given.model)
    prefix: Path = given.prefix.absolute()
    starters = f"{prefix / 'services' / 'wrap'}"
    if starters not in os.environ["PATH"]:
        os.environ["PATH"] = f"{starters}:{os.environ['PATH']}"
    return Place(given.python or Path(shutil.which("python3") or "python3"), given.device, prefix / "sglang")


def options_of(given: argparse.Namespace) -> dict[str, Any]:
    wanted = {"stream-interval": given.stream_interval, "tokenizer-worker-num": given.tokenizers}
    return {name: value for name, value in wanted.items() if value is not None}
