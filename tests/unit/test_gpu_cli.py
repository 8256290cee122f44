import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.gpu_report import kv_pool, lines_of
from cli.main import app

TWO = """
[[model]]
name = "near"
engine = "sglang"
path = "/models/m"
gpu = "MIG-1234"
mps_thread_percentage = 40
numa_node = 1
tensor_parallel = 2

[[model]]
name = "far"
engine = "sglang"
url = "http://127.0.0.1:9"
"""


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    (tmp_path / "models.toml").write_text(TWO)
    monkeypatch.setenv("PENSTOCK_CATALOGUE", str(tmp_path / "models.toml"))
    result = CliRunner().invoke(app, ["gpu", "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def test_an_entry_shows_its_placement_and_its_command_without_a_key(shown: dict[str, Any]) -> None:
    near, _ = shown["models"]

    assert near["environment"]["CUDA_VISIBLE_DEVICES"] == "MIG-1234"
    assert near["environment"]["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "40"
    assert near["command"].startswith("numactl --cpunodebind=1 --membind=1 ")
    assert "--tensor-parallel-size 2" in near["command"]
    assert "--api-key …" in near["command"].replace("'", "")


def test_a_server_that_does_not_answer_is_said_to_be_silent(shown: dict[str, Any]) -> None:
    _, far = shown["models"]

    assert "does not say" in far["kv_pool"]["error"]


def test_a_machine_without_a_gpu_says_so() -> None:
    lines = lines_of({"gpus": [], "mig_instances": [], "models": []})

    assert lines[0].startswith("No GPU: NVIDIA's driver does not answer here")
    assert lines[-1] == "No entry of the catalogue runs on SGLang."


def test_the_kv_pool_is_that_of_all_ranks() -> None:
    rank = {
        "num_used_tokens": 10,
        "max_total_num_tokens": 100,
        "num_running_reqs": 2,
        "num_waiting_reqs": 1,
    }

    assert kv_pool([rank, rank]) == {"used_tokens": 20, "tokens": 200, "running": 4, "waiting": 2}
