"""Bare SGLang beside the whole platform, on one CUDA machine without internet.

Run: benchmarks/gpu/setup.sh ARCHIVES PREFIX
     PREFIX/penstock/venv/bin/python -m benchmarks.gpu.run --prefix PREFIX --model 8b --json results.json
Without a GPU: python -m benchmarks.gpu.run --model tiny --device cpu --python .venv-sglang/bin/python --small
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.gpu import scenarios
from benchmarks.gpu.checkpoint import make
from benchmarks.gpu.prompts import Texts
from benchmarks.gpu.server import Place, Server, entry
from benchmarks.measure import machine
from tests.services import open_services

SCENARIOS: Final = ("all", "one", "refill", "cancel", "prefix", "kill")


@dataclass
class Log:
    """What was measured so far: printed at once and kept, for a run may be cut off."""

    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, scenario: str, arm: str, **figures: Any) -> dict[str, Any]:
        row = {"scenario": scenario, "arm": arm} | figures
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        self.path.write_text(json.dumps(self.facts | {"rows": self.rows}, indent=1) + "\n")
        return row

    @contextmanager
    def guarded(self, scenario: str) -> Iterator[None]:
        """A scenario that fails is a row that says so; the others go on."""
        began = time.monotonic()
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the edge
            self.add(scenario, "FAILED", error=f"{type(error).__name__}: {error}"[-1500:])
            traceback.print_exc()
        print(f"-- {scenario}: {time.monotonic() - began:.0f} s", flush=True)


def main() -> int:
    given = _arguments()
    place = _place(given)
    log = Log(given.json, facts={"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()})
    log.facts |= {"model": given.model, "command": " ".join(sys.argv[1:]), "gpu": _gpu()}
    folder = Path(tempfile.mkdtemp(prefix="penstock-gpu-"))
    folder.chmod(0o755)
    began = time.monotonic()
    model = make(given.model, folder / "model")
    server = Server(entry(place, model, options=_options(given)), folder / "sglang.log")
    if given.only != ["prefix"]:  # which has a server of its own
        server.launch()  # its start takes half a minute: the services start beside it
    try:
        with open_services() as services:
            bench = scenarios.Bench(
                place, model, Texts(model), services, folder, log, small=given.small, server=server
            )
            print(f"services up after {time.monotonic() - began:.0f} s", flush=True)
            for name in given.only:
                with log.guarded(name):
                    getattr(scenarios, f"scenario_{name}")(bench)
    finally:
        server.kill()
        _keep_logs(folder, given.json.parent)
    _print(log)
    return 1 if any(row["arm"] == "FAILED" for row in log.rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("8b", "0.5b", "tiny"), default="8b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--prefix", type=Path, help="where setup.sh put everything")
    parser.add_argument("--python", type=Path, help="the interpreter that has SGLang's torch")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--small", action="store_true", help="a tenth of the requests: to try it")
    parser.add_argument("--stream-interval", type=int, help="SGLang's own: tokens per streamed piece")
    parser.add_argument("--json", type=Path, default=Path("gpu-results.json"))
    return parser.parse_args()


def _place(given: argparse.Namespace) -> Place:
    if given.prefix is None:
        return Place(given.python.absolute(), given.device)
    prefix: Path = given.prefix.absolute()
    os.environ["PATH"] = f"{prefix / 'services' / 'wrap'}:{os.environ['PATH']}"
    return Place(given.python or Path(shutil.which("python3") or "python3"), given.device, prefix / "sglang")


def _options(given: argparse.Namespace) -> dict[str, Any]:
    return {} if given.stream_interval is None else {"stream-interval": given.stream_interval}


def _gpu() -> str:
    try:
        import pynvml

        pynvml.nvmlInit()
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError:
        return "none"
    return str(name)


def _keep_logs(folder: Path, to: Path) -> None:
    """The last lines of every process, beside the results."""
    tails = [
        f"==== {path.relative_to(folder)}\n{path.read_text(errors='replace')[-6000:]}"
        for path in sorted(folder.rglob("*.log"))
    ]
    (to / "logs.txt").write_text("\n".join(tails))


def _print(log: Log) -> None:
    table = Table("scenario", "arm", "figures", title=f"{log.facts['model']} on {log.facts['gpu']}")
    for row in log.rows:
        rest = {name: value for name, value in row.items() if name not in {"scenario", "arm"}}
        table.add_row(
            row["scenario"], row["arm"], ", ".join(f"{name} {value}" for name, value in rest.items())
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    sys.exit(main())
