"""The benchmarks one after another, their figures kept as JSON, their page and plots made from those.

Run: python -m benchmarks.run [--long] [--keep docs/benchmarks]
Exits non-zero where a figure falls short. `--long` takes more rounds, and adds the backlog of a million jobs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import page

SHORT = {
    "order": ["--rounds", "3"],
    "submit": ["--rounds", "3", "--requests", "2000"],
    "pipeline": ["--rounds", "2", "--jobs", "2500", "--seconds", "6"],
    "stream": ["--seconds", "10"],
    "poll": ["--rounds", "1", "--requests", "3000"],
}
LONG = {
    "order": ["--rounds", "9"],
    "submit": ["--rounds", "7"],
    "pipeline": ["--rounds", "5", "--jobs", "5000", "--seconds", "20"],
    "stream": ["--rounds", "3", "--seconds", "20"],
    "poll": ["--rounds", "3"],
    "backlog": [],
    "batches": [],
    "batch_prefixes": [],
}


def run(name: str, options: list[str], folder: Path) -> tuple[int, dict[str, Any] | None]:
    """A process of its own for each: none inherits the heap, the sockets or the limits of another."""
    path = folder / f"{name}.json"
    began = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(path), *options]
    status = subprocess.run(command, check=False).returncode
    Console().print(f"{name}: {time.monotonic() - began:.0f} s")
    return status, json.loads(path.read_text()) if path.exists() else None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--long", action="store_true", help="more rounds, and the long set")
    parser.add_argument("--only", help="one of the benchmarks")
    parser.add_argument("--keep", type=Path, help="write the page and its plots into this folder")
    given = parser.parse_args()
    chosen = LONG if given.long else SHORT
    failed: list[str] = []
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, options in chosen.items():
            if given.only in {None, name}:
                status, document = run(name, options, Path(folder))
                failed += [name] if status else []
                found += [document] if document else []
    if given.keep:
        page.write(found, given.keep, command="make bench-long" if given.long else "make bench")
    Console().print("every figure holds" if not failed else f"falls short: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
