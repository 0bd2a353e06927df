"""Gradients of tables, kept from step to step.

Fresh memory of tens of megabytes costs the operating system more than the step's arithmetic: it hands out zeroed pages
one by one. An optimiser that has used up a gradient, and zeroed it again, gives it back; the next backward takes it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_MOST_KEPT = 4
_CPU = torch.device("cpu")
_kept: list[Tensor] = []


def take_zeros(shape: Sequence[int], device: torch.device = _CPU) -> Tensor:
    """A float32 tensor of zeros that nobody else holds."""
    for i, tensor in enumerate(_kept):
        if tensor.shape == torch.Size(shape) and tensor.device == device:
            return _kept.pop(i)
    return torch.zeros(*shape, device=device)


def give_back(zeros: Tensor) -> None:
    """Keep a tensor of zeros for the next who asks; the caller must not touch it any more."""
    _kept.append(zeros)
    del _kept[:-_MOST_KEPT]
