"""What to do when memory runs out: told in words of the settings that need it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from ..errors import OutOfMemory
from .fit_types import FitConfig

Asked = ParamSpec("Asked")
Result = TypeVar("Result")

_OF_CPU = ("can't allocate memory", "not enough memory", "cannot allocate memory", "bad_alloc")


def telling_memory(function: Callable[Asked, Result]) -> Callable[Asked, Result]:
    """The function, which takes a scene and a `FitConfig`, with an `OutOfMemory` that helps for an allocator's.

    A run in which memory ran out is not made smaller by itself: it would be another fit than the one that was asked
    for. A sweep does that, and says so.
    """

    @wraps(function)
    def told(*args: Asked.args, **kwargs: Asked.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            config = next((value for value in (*args, *kwargs.values()) if isinstance(value, FitConfig)), FitConfig())
            smaller = _smaller(config)
            raise OutOfMemory(_advice(config, smaller, error), smaller) from error

    return told


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocator of Python, of torch on the CPU or on a GPU had no more."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _OF_CPU)


def _smaller(config: FitConfig) -> tuple[str, ...]:
    rays = ("interior_rays", "edge_rays", "depth_rays")
    halves = (f"fit.{name}={max(1, getattr(config, name) // 2)}" for name in rays)
    return (*halves, f"fit.patch_rays={config.patch_rays // 2}")


def _advice(config: FitConfig, smaller: tuple[str, ...], error: BaseException) -> str:
    where = "the GPU" if isinstance(error, torch.cuda.OutOfMemoryError) else "memory"
    first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return (
        f"training ran out of {where} ({first}); close other programs, or ask for half of it by {' '.join(smaller)}, "
        f"or by fit.field.log2_table_size={max(10, config.field.log2_table_size - 1)} (with "
        "overwrite=true in the same folder); the last checkpoint goes on with the same settings only"
    )
