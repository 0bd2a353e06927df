"""The definition of `neus_alpha`, by way of log Phi: gradients by autograd."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from . import ALMOST_OPAQUE


def neus_alpha_torch(
    before: Float[Tensor, "samples"], after: Float[Tensor, "samples"], inv_s: float
) -> Float[Tensor, "samples"]:
    log_left = logsigmoid(after * inv_s) - logsigmoid(before * inv_s)
    return (-torch.expm1(torch.where(after < before, log_left, 0.0))).clamp_max(ALMOST_OPAQUE)
