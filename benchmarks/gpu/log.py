"""What a run on a GPU found so far: printed at once and kept, for a run may be cut off."""

import json
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pynvml


@dataclass
class Log:
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


def the_gpu() -> str:
    try:
        pynvml.nvmlInit()
        names = [
            str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(number)))
            for number in range(pynvml.nvmlDeviceGetCount())
        ]
    except pynvml.NVMLError:
        return "none"
    return f"{len(names)} x {names[0]}" if len(names) > 1 else names[0]
