"""What NVIDIA's management library says of this worker's GPUs."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import pynvml

from core import metrics

_PERCENT: Final = 100
_MILLI: Final = 1000


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One GPU at one moment: a ratio of time, bytes, degrees Celsius, watts. None: it does not say."""

    gpu: str
    name: str
    utilization: float
    memory_used: int
    memory: int
    temperature: int | None
    power: float | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class MigInstance:
    """A part of a GPU that CUDA takes for one. `gpu` is the card's number, memory in bytes."""

    gpu: str
    uuid: str
    memory_used: int
    memory: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Gpus:
    """Opened once; without a driver there are none. `read` takes milliseconds: not on a loop."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._handles: dict[str, Any] = {}
        try:
            pynvml.nvmlInit()
            count = pynvml.nvmlDeviceGetCount()
        except pynvml.NVMLError:
            return
        for index in range(count):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            if is_visible(index, _text(pynvml.nvmlDeviceGetUUID(handle)), environ):
                self._handles[str(index)] = handle

    def __len__(self) -> int:
        return len(self._handles)

    def read(self) -> list[GpuReading]:
        """Those that answer; a GPU that fell off the bus is missing."""
        return [found for gpu, handle in self._handles.items() if (found := _read(gpu, handle))]

    def instances(self) -> list[MigInstance]:
        """Those of the cards on which MIG is turned on."""
        return [one for gpu, handle in self._handles.items() for one in _instances(gpu, handle)]


def is_visible(index: int, uuid: str, environ: Mapping[str, str]) -> bool:
    """Whether CUDA lets this process use the GPU: by number, or by the start of its UUID."""
    chosen = environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return True
    names = [name.strip() for name in chosen.split(",")]
    return str(index) in names or any(name.startswith("GPU-") and uuid.startswith(name) for name in names)


def show(readings: list[GpuReading]) -> None:
    for one in readings:
        metrics.GPU_BUSY.labels(one.gpu).set(one.utilization)
        metrics.GPU_MEMORY_USED.labels(one.gpu).set(one.memory_used)
        metrics.GPU_MEMORY.labels(one.gpu).set(one.memory)
        if one.temperature is not None:
            metrics.GPU_CELSIUS.labels(one.gpu).set(one.temperature)
        if one.power is not None:
            metrics.GPU_WATTS.labels(one.gpu).set(one.power)


def _read(gpu: str, handle: Any) -> GpuReading | None:
    try:
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        busy = pynvml.nvmlDeviceGetUtilizationRates(handle)
        name = _text(pynvml.nvmlDeviceGetName(handle))
    except pynvml.NVMLError:
        return None
    return GpuReading(
        gpu=gpu,
        name=name,
        utilization=busy.gpu / _PERCENT,
        memory_used=int(memory.used),
        memory=int(memory.total),
        temperature=_optional(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        power=_watts(_optional(pynvml.nvmlDeviceGetPowerUsage, handle)),
    )


def _instances(gpu: str, handle: Any) -> Iterator[MigInstance]:
    for place in range(_optional(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = _optional(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)
        memory = part and _optional(pynvml.nvmlDeviceGetMemoryInfo, part)
        if memory:
            uuid = _text(pynvml.nvmlDeviceGetUUID(part))
            yield MigInstance(gpu, uuid, int(memory.used), int(memory.total))


def _optional(question: Any, *arguments: Any) -> Any:
    """Some cards and virtual GPUs do not tell."""
    try:
        return question(*arguments)
    except pynvml.NVMLError:
        return None


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / _MILLI


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
