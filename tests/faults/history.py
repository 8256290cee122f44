"""The version before this one, out of the repository's history: what a rollout finds running."""

import subprocess
import tarfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_MIGRATIONS: Final = "migrations/versions"


class NoHistory(Exception):
    """This copy of the repository does not hold the version before."""


def version_before() -> str:
    """The commit before the newest migration was added. Raises `NoHistory`."""
    added = _git("log", "-1", "--diff-filter=A", "--format=%H", "--", _MIGRATIONS)
    try:
        return _git("rev-parse", "--verify", "--quiet", f"{added}^{{commit}}^")
    except NoHistory:
        raise NoHistory(
            f"The commit before the newest migration ({added or 'none is committed'}) is not in this clone. "
            "Run `git fetch --unshallow`, or name a commit with `--before`."
        ) from None


def unpack(commit: str, folder: Path) -> Path:
    """The files of that commit, below `folder`. Raises `NoHistory`."""
    folder.mkdir(parents=True)
    archive = folder.with_suffix(".tar")
    _git("archive", "--format=tar", f"--output={archive}", commit)
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    archive.unlink()
    return folder


def newest_migration(source: Path) -> str:
    """Its number, as the file's name begins."""
    return max(path.name[:4] for path in (source / _MIGRATIONS).glob("[0-9]*.py"))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoHistory(f"git {arguments[0]}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout.strip()
