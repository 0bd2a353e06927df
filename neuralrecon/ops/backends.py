"""Which implementation of an op runs: the only place that looks at devices and at what is installed.

Every op has a torch definition that runs anywhere. On the CPU, float32 inputs go to Numba's compiled loops; anything
else (float64, another device) goes to the definition. `use_backend("torch")` forces the definition, for tests and
for comparing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum

import torch


class Backend(StrEnum):
    """`auto` picks the fastest that can take the inputs."""

    auto = "auto"
    torch = "torch"
    cpu = "cpu"


_chosen: ContextVar[Backend] = ContextVar("backend", default=Backend.auto)


@contextmanager
def use_backend(backend: Backend | str) -> Iterator[None]:
    """Within the block every op runs on `backend`.

    Example:
        >>> with use_backend("torch"):
        ...     pass
    """
    token = _chosen.set(Backend(backend))
    try:
        yield
    finally:
        _chosen.reset(token)


def backend_for(tensor: torch.Tensor) -> Backend:
    """The backend that will take `tensor`; the choice depends on device and dtype only."""
    chosen = _chosen.get()
    if chosen != Backend.auto:
        return chosen
    return Backend.cpu if tensor.device.type == "cpu" and tensor.dtype == torch.float32 else Backend.torch
