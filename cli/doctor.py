"""`penstock doctor`: one table, one remedy for each thing that is wrong."""

import asyncio

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.checks import Check, run_checks
from cli.console import emit


def examine(*, as_json: bool) -> int:
    """The exit code: 1 when something is wrong."""
    checks = asyncio.run(run_checks())
    if as_json:
        for check in checks:
            emit({"check": check.name, "ok": check.ok, "found": check.found, "remedy": check.remedy})
    else:
        Console().print(_table(checks))
    return 0 if all(check.ok for check in checks) else 1


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in ("", "Check", "Found", "What to do"):
        table.add_column(header, overflow="fold")
    for check in checks:
        mark = Text("✓", style="green") if check.ok else Text("✗", style="red")
        table.add_row(mark, check.name, Text(check.found), Text("" if check.ok else check.remedy))
    return table
