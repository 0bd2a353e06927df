"""One step of Adam on a large table of which a step touches little."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..backends import Backend, backend_for


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamSettings:
    """Kingma and Ba 2015, "Adam": rate alpha, decays of the two moments, epsilon, and the step's number from 1."""

    rate: float
    betas: tuple[float, float]
    eps: float
    step: int

    @property
    def scales(self) -> tuple[float, float]:
        """The rate over the first moment's bias, and one over the second's."""
        return self.rate / (1 - self.betas[0] ** self.step), 1 / (1 - self.betas[1] ** self.step)


@torch.no_grad()
def adam_step(
    parameter: Float[Tensor, "entries f"],
    gradient: Float[Tensor, "entries f"],
    mean: Float[Tensor, "entries f"],
    variance: Float[Tensor, "entries f"],
    settings: AdamSettings,
) -> None:
    """Algorithm 1 of the paper, in place, for elements whose gradient is not exactly zero; the gradient becomes zero.

    The others, their moments included, stay as they are (Müller et al. 2022, "Instant neural graphics primitives", §4).
    """
    backend = backend_for(parameter)
    if backend == Backend.cpu:
        from ._cpu import adam_step_cpu

        return adam_step_cpu(parameter, gradient, mean, variance, settings)
    if backend == Backend.triton:
        from ._triton import adam_step_triton

        return adam_step_triton(parameter, gradient, mean, variance, settings)
    from ._torch import adam_step_torch

    return adam_step_torch(parameter, gradient, mean, variance, settings)
