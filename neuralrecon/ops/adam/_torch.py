"""The definition of `adam_step`."""

from __future__ import annotations

import torch
from torch import Tensor

from . import AdamSettings


def adam_step_torch(
    parameter: Tensor, gradient: Tensor, mean: Tensor, variance: Tensor, settings: AdamSettings
) -> None:
    touched = gradient != 0
    (first, second), (by_mean, by_variance) = settings.betas, settings.scales
    mean.copy_(torch.where(touched, first * mean + (1 - first) * gradient, mean))
    variance.copy_(torch.where(touched, second * variance + (1 - second) * gradient.square(), variance))
    change = by_mean * mean / ((by_variance * variance).sqrt() + settings.eps)
    parameter.sub_(torch.where(touched, change, 0.0))
    gradient.zero_()
