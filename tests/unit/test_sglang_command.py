"""What an SGLang entry would run, as rendered: no GPU is needed to read it."""

from typing import Any

import pytest
from pydantic import ValidationError

from models.catalogue import SGLangModel
from workers.engines.protocol import Prompt
from workers.engines.request_body import Dialect, request_for
from workers.engines.sglang_command import arguments, command, environment


def entry(**fields: Any) -> SGLangModel:
    return SGLangModel.model_validate({"name": "m", "engine": "sglang", "path": "/models/m"} | fields)


def rendered(**fields: Any) -> str:
    return " ".join(arguments(entry(**fields), port=30000, api_key="secret"))


@pytest.mark.parametrize(
    ("fields", "shows"),
    [
        ({"tensor_parallel": 2}, "--tensor-parallel-size 2"),
        ({"quantization": "fp8"}, "--quantization fp8"),
        ({"prefill_chunk": 2048}, "--chunked-prefill-size 2048"),
        ({"slots": 64}, "--max-running-requests 64"),
        ({"batch_tokens": 8192}, "--max-prefill-tokens 8192"),
        ({"host_cache_ratio": 2.0}, "--enable-hierarchical-cache --hicache-ratio 2.0"),
        ({"adapters": {"tone": "/lora/tone"}}, "--lora-paths tone=/lora/tone"),
        ({"reasoning_parser": "deepseek-r1"}, "--reasoning-parser deepseek-r1"),
        (
            {"priority_scheduling": True},
            "preemption-threshold 100 --schedule-policy fcfs",
        ),
        ({"options": {"page_size": 16, "enable_dp_attention": True}}, "--page-size 16 --enable-dp-attention"),
        ({"preset": "high-concurrency"}, "4096 --chunked-prefill-size 512 --stream-interval 16"),
        ({"stream_interval": 4, "preset": "high-concurrency"}, "--stream-interval 4"),
        ({"device": "cpu"}, "--attention-backend torch_native"),
    ],
)
def test_a_field_becomes_sglangs_option(fields: dict[str, Any], shows: str) -> None:
    assert shows in rendered(**fields)


def test_an_option_by_name_wins_over_what_is_derived() -> None:
    words = rendered(slots=8, options={"max_running_requests": 4, "enable_metrics": False})

    assert "--max-running-requests 4" in words
    assert "--max-running-requests 8" not in words
    assert "--enable-metrics" not in words


def test_placement_is_environment_and_numactl() -> None:
    model = entry(gpu="MIG-1234", mps_thread_percentage=50, numa_node=1, environment={"SGLANG_X": "1"})

    added = environment(model, {})

    assert added["CUDA_VISIBLE_DEVICES"] == "MIG-1234"
    assert added["CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"] == "50"
    assert added["SGLANG_X"] == "1"
    assert command(model)[:3] == ("numactl", "--cpunodebind=1", "--membind=1")


def test_the_key_is_in_no_process_list() -> None:
    assert "secret" not in " ".join(command(entry()))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"path": ""}, "give either path"),
        ({"url": "http://gpu:1"}, "give either path"),
        ({"preset": "high-concurrency", "slots": 512}, "runs 256 requests"),
        ({"mps_thread_percentage": 0}, "mps_thread_percentage"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        entry(**fields)


def test_a_request_carries_its_id_its_priority_and_its_salt() -> None:
    prompt = Prompt("job_1.2", text="hello", priority=7, cache_salt="s")

    _, body = request_for(prompt, Dialect("m", request_ids=True))

    assert (body["rid"], body["priority"], body["cache_salt"]) == ("job_1.2", 7, "s")


def test_other_servers_never_see_those_fields() -> None:
    _, body = request_for(Prompt("job_1.2", text="hello", cache_salt="s"), Dialect("m"))

    assert not {"rid", "priority", "cache_salt"} & body.keys()
