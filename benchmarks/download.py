"""What `make demo` downloads on a fresh machine: `python -m benchmarks.download`; fails above the limit.

Fetches the very files into a folder of its own, past every cache, and adds up their sizes.
"""

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
LIMIT: Final = 120_000_000  # bytes
_MEGABYTE: Final = 1_000_000
_LARGEST: Final = 8


def requirements() -> list[str]:
    """What `make setup` installs: the platform, uv, and what builds an editable install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return [*project["project"]["dependencies"], *project["build-system"]["requires"], "editables", "uv"]


def fetch(folder: str) -> list[Path]:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-cache-dir", "--only-binary=:all:"]
    places = ["-c", str(ROOT / "constraints.txt"), "-d", folder]
    subprocess.run([*command, *places, *requirements()], check=True)
    return sorted(Path(folder).iterdir(), key=lambda file: file.stat().st_size, reverse=True)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        sizes = [(file.name.split("-")[0], file.stat().st_size) for file in fetch(folder)]
    total = sum(size for _, size in sizes)
    for name, size in sizes[:_LARGEST]:
        print(f"  {name:22} {size / _MEGABYTE:6.1f} MB")
    print(f"{len(sizes)} files, {total / _MEGABYTE:.1f} MB; at most {LIMIT / _MEGABYTE:.0f} MB")
    return int(total > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
