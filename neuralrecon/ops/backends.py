"""Which implementation of an op runs: the only place that looks at devices and at what is installed.

Every op has a torch definition that runs anywhere. On the CPU, float32 inputs go to Numba's compiled loops; on a GPU,
to Triton's kernels where Triton is installed, as it is beside torch's CUDA builds on Linux; anything else (float64,
another device) goes to the definition. `use_backend("torch")` forces the definition, for tests and for comparing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from functools import cache
from importlib.util import find_spec

import torch

from ..errors import ConfigError


class Backend(StrEnum):
    """`auto` picks the fastest that can take the inputs; `nerfacc` has `composite` only, the rest is as with `auto`."""

    auto = "auto"
    torch = "torch"
    cpu = "cpu"
    triton = "triton"
    nerfacc = "nerfacc"


_chosen: ContextVar[Backend] = ContextVar("backend", default=Backend.auto)


@contextmanager
def use_backend(backend: Backend | str) -> Iterator[None]:
    """Within the block every op runs on `backend`, or on the torch definition if it has nothing of its own there.

    Raises:
        ValueError: no backend of that name.
        ConfigError: the backend is not there on this machine.

    Example:
        >>> with use_backend("torch"):
        ...     pass
    """
    _require(Backend(backend))
    token = _chosen.set(Backend(backend))
    try:
        yield
    finally:
        _chosen.reset(token)


def backend_for(tensor: torch.Tensor, *special: Backend) -> Backend:
    """The backend that will take `tensor`; the choice depends on device and dtype only.

    `special` are the backends beyond torch, cpu and triton that the op has.

    Raises:
        ConfigError: Triton or nerfacc was chosen by name and cannot take a tensor of this device and type.
    """
    chosen = _chosen.get()
    if chosen == Backend.auto or (chosen == Backend.nerfacc and chosen not in special):
        return _fastest_for(tensor)
    if chosen in (Backend.triton, Backend.nerfacc):
        _require_takes(chosen, tensor)
    return chosen


def _fastest_for(tensor: torch.Tensor) -> Backend:
    if tensor.dtype == torch.float32 and tensor.device.type == "cpu":
        return Backend.cpu
    if tensor.dtype == torch.float32 and tensor.device.type == "cuda" and _is_installed("triton"):
        return Backend.triton
    return Backend.torch


@cache
def _is_installed(module: str) -> bool:
    return find_spec(module) is not None


def _is_interpreted() -> bool:
    """Whether Triton was told to run its kernels in Python, on any machine: slow, for tests."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


def _require(backend: Backend) -> None:
    if backend not in (Backend.triton, Backend.nerfacc):
        return
    if not _is_installed(backend):
        raise ConfigError(
            f"backend {backend}: no module of that name is installed, wanted it importable; "
            f'install it (pip install {backend}) or use the backend "auto"'
        )
    if not torch.cuda.is_available() and not (backend == Backend.triton and _is_interpreted()):
        hint = "; for a test, set TRITON_INTERPRET=1 before starting Python" if backend == Backend.triton else ""
        raise ConfigError(
            f'backend {backend}: torch sees no CUDA device, wanted one; use the backend "auto" or a CUDA build of torch'
            f" on a machine with a GPU{hint}"
        )


def _require_takes(backend: Backend, tensor: torch.Tensor) -> None:
    on_device = tensor.device.type == "cuda" or (backend == Backend.triton and _is_interpreted())
    if not (on_device and tensor.dtype == torch.float32):
        raise ConfigError(
            f"backend {backend}: got a {tensor.dtype} tensor on {tensor.device}, wanted torch.float32 on cuda; "
            f'move it there, or use the backend "auto"'
        )
