"""Stands in for SGLang's CUDA kernels where there is no CUDA: names resolve, calls fail with their name."""

from collections.abc import Callable
from typing import Any, NoReturn

__version__ = "0.0.0+cpu"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*_args: Any, **_options: Any) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name} needs CUDA; this environment is for a CPU.")

    missing.__name__ = missing.__qualname__ = name
    return missing
