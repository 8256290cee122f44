"""A migration only adds: the version before runs on its schema, during a rollout and after a rollback."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

import migrations

# No statement names an index, so that one may go.
ADDS = {"add_column", "create_table", "create_index", "drop_index"}
# A migration that takes away says why it may: CONTRACTS = "nothing reads … since …".
MARK = "CONTRACTS"


class Recorder:
    """In place of Alembic's operations: what a migration would do."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def f(self, name: str) -> str:
        return name

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **_: self.calls.append((name, arguments))


def scripts() -> list[ModuleType]:
    folder = ScriptDirectory(str(Path(migrations.__file__).parent))
    return [script.module for script in folder.walk_revisions()]


def what_the_version_before_would_notice(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    recorder = Recorder()
    monkeypatch.setattr(module, "op", recorder)
    module.upgrade()
    return [f"{name} {said}" for name, said in map(noticed, recorder.calls) if said]


def noticed(call: tuple[str, tuple[Any, ...]]) -> tuple[str, str]:
    name, arguments = call
    if name not in ADDS:
        return name, str(arguments)
    if name != "add_column":
        return name, ""
    table, column = arguments
    assert isinstance(column, sa.Column)
    must_be_given = not column.nullable and column.server_default is None
    return name, f"{table}.{column.name} without a default" if must_be_given else ""


@pytest.mark.parametrize("module", scripts(), ids=lambda module: module.revision)
def test_a_migration_takes_nothing_from_the_version_before(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = what_the_version_before_would_notice(module, monkeypatch)

    assert found == [] or hasattr(module, MARK)


def test_what_takes_away_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("harmful")

    def upgrade() -> None:
        module.op.drop_column("jobs", "cost")
        module.op.add_column("jobs", sa.Column("must", sa.Integer(), nullable=False))
        module.op.add_column("jobs", sa.Column("may", sa.Integer()))

    module.__dict__.update(op=None, upgrade=upgrade)

    found = what_the_version_before_would_notice(module, monkeypatch)

    assert found == ["drop_column ('jobs', 'cost')", "add_column jobs.must without a default"]
