"""The rules of the house that no other tool checks."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

from core.settings import DatabaseSettings, Settings, setting_names
from docs.generate import pages

ROOT = Path(__file__).resolve().parents[2]
LONGEST_FILE = 500
LONGEST_FUNCTION = 60
# Names that say where code was put, and not what it owns.
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
# Folders of this or that machine. Those of a container's image and of the system are everybody's.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:root|home|work|farm|Users|mnt)/[\w.-]+")
# Written so that this file does not match.
REGISTRY = re.compile(r"p[y]pi\.org|pythonhoste[d]|registry\.npm[j]s|deb\.debia[n]")


def tracked(*suffixes: str) -> list[Path]:
    """Files of the repository: committed, or about to be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    paths = [ROOT / name for name in listing.split("\0") if name]
    return [path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes)]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def texts() -> Iterator[tuple[str, str]]:
    for path in tracked():
        if "bundled" in path.parts:
            continue
        try:
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_no_file_is_too_long() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in tracked(".py")}

    assert {str(path): lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_no_function_is_too_long() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{function.lineno} {function.name}"
        for path in tracked(".py")
        # A migration is a list of statements, and a generated one.
        if "versions" not in path.parts
        for function in functions(path)
        if (function.end_lineno or 0) - function.lineno + 1 > LONGEST_FUNCTION
    ]

    assert long == []


def test_every_module_is_named_by_what_it_owns() -> None:
    assert [path for path in tracked(".py") if path.stem in VAGUE] == []


def test_every_module_says_what_it_owns() -> None:
    silent = [
        path
        for path in tracked(".py")
        # A test module says it in its tests, which are sentences.
        if "tests" not in path.parts
        and path.read_text(encoding="utf-8").strip()
        and not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]

    assert silent == []


def test_no_file_names_a_folder_of_one_machine() -> None:
    assert [(name, MACHINE_PATH.findall(text)) for name, text in texts() if MACHINE_PATH.search(text)] == []


def test_no_file_names_a_package_registry() -> None:
    assert [name for name, text in texts() if REGISTRY.search(text)] == []


def test_the_import_contracts_hold() -> None:
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml")) == EXIT_STATUS_SUCCESS


def test_the_environment_example_names_only_known_settings() -> None:
    named = set(re.findall(r"^#?(PENSTOCK_\w+)=", (ROOT / ".env.example").read_text("utf-8"), re.MULTILINE))

    assert named - set(setting_names()) == set()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_the_environment_example_mentions_each_group(name: str) -> None:
    assert f"PENSTOCK_{name.upper()}" in (ROOT / ".env.example").read_text("utf-8")


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_a_generated_page_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == pages()[path], "run `make docs`"


def test_the_migrations_make_what_the_tables_say(tmp_path: Path) -> None:
    config = Config(ROOT / "alembic.ini")
    config.attributes["database"] = DatabaseSettings(url=f"sqlite+aiosqlite:///{tmp_path}/house.db")

    command.upgrade(config, "head")

    command.check(config)


def test_help_starts_without_the_heavy_parts() -> None:
    heavy = "{'sqlalchemy', 'celery', 'fastapi', 'pydantic', 'httpx'}"
    code = f"import sys, cli.main; print({heavy} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_decisions_are_numbered_without_a_gap() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "adr").glob("*.md"))

    assert numbers == list(range(1, len(numbers) + 1))
