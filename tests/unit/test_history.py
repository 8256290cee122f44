"""Where the fault harness finds the version before this one."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.faults import history
from tests.faults.history import NoHistory, newest_migration, unpack, version_before

NOBODY = {f"GIT_{who}_{what}": "nobody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-C", str(folder), *arguments]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | NOBODY)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two migrations, and a change after them."""
    folder = tmp_path / "repository"
    versions = folder / "migrations/versions"
    versions.mkdir(parents=True)
    git(folder, "init", "-q")
    for name in ("migrations/versions/0001_first.py", "migrations/versions/0002_second.py", "other.py"):
        (folder / name).write_text("")
        git(folder, "add", ".")
        git(folder, "commit", "-q", "-m", name)
    return folder


def test_the_version_before_lacks_the_newest_migration(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "ROOT", repository)

    before = unpack(version_before(), tmp_path / "before")

    assert (newest_migration(before), newest_migration(repository)) == ("0001", "0002")


def test_a_clone_without_its_history_is_told_what_to_do(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "clone", "-q", "--depth", "1", repository.as_uri(), "shallow")
    monkeypatch.setattr(history, "ROOT", tmp_path / "shallow")

    with pytest.raises(NoHistory, match="unshallow"):
        version_before()


def test_files_without_a_repository_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "ROOT", tmp_path)

    with pytest.raises(NoHistory, match="git log"):
        version_before()
