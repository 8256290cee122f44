"""Bare SGLang beside the whole platform, on one CUDA machine without internet.

Run: benchmarks/gpu/setup.sh ARCHIVES PREFIX
     PREFIX/penstock/venv/bin/python -m benchmarks.gpu.run --prefix PREFIX --model 8b --json results.json
Without a GPU: python -m benchmarks.gpu.run --model tiny --device cpu --python .venv-sglang/bin/python --small
Without SGLang: python -m benchmarks.gpu.run --device timetable --stream-interval 16 --only all slots
"""

import argparse
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.gpu import scenarios
from benchmarks.gpu.checkpoint import make
from benchmarks.gpu.log import Log, the_gpu
from benchmarks.gpu.place import add_place, options_of, place_of
from benchmarks.gpu.prompts import Texts
from benchmarks.gpu.server import Server, entry
from benchmarks.measure import machine
from tests.services import open_services

SCENARIOS: Final = ("all", "one", "refill", "cancel", "slots", "prefix", "kill")


def main() -> int:
    given = _arguments()
    place = place_of(given)
    log = Log(given.json, facts={"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()})
    log.facts |= {"model": given.model, "command": " ".join(sys.argv[1:]), "gpu": the_gpu()}
    folder = Path(tempfile.mkdtemp(prefix="penstock-gpu-"))
    folder.chmod(0o755)
    began = time.monotonic()
    model = make(given.model, folder / "model")
    server = Server(entry(place, model, options=options_of(given)), folder / "sglang.log", place)
    if given.only[0] not in {"prefix", "slots"}:  # which have servers of their own
        server.launch()  # its start takes half a minute: the services start beside it
    try:
        with open_services() as services:
            bench = scenarios.Bench(
                place, model, Texts(model), services, folder, log, given=given, server=server
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
    add_place(parser)
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--small", action="store_true", help="a tenth of the requests: to try it")
    parser.add_argument("--rounds", type=int, default=2, help="of bare and whole, in turn (default 2)")
    parser.add_argument("--workers", type=int, default=1, help="of a further arm of all at once")
    parser.add_argument("--json", type=Path, default=Path("gpu-results.json"))
    return parser.parse_args()


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
