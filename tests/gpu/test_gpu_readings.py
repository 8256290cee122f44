"""What the management library says on a machine with a GPU."""

import pytest

from core.metrics import REGISTRY
from workers.gpu import Gpus, show


@pytest.fixture
def gpus() -> Gpus:
    found = Gpus({})
    if not len(found):
        pytest.skip("no NVIDIA GPU here")
    return found


def test_a_gpu_tells_its_load_its_memory_its_heat_and_its_power(gpus: Gpus) -> None:
    first = gpus.read()[0]
    show([first])

    assert 0 <= first.utilization <= 1
    assert 0 < first.memory_used < first.memory
    assert first.temperature is None or 0 < first.temperature < 120
    assert first.power is None or first.power > 0
    assert REGISTRY.get_sample_value("penstock_gpu_memory_bytes", {"gpu": first.gpu}) == first.memory


def test_a_gpu_that_cuda_hides_is_not_read() -> None:
    assert len(Gpus({"CUDA_VISIBLE_DEVICES": ""})) == 0
