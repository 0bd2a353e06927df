"""The definition of `neus_alpha`, by way of log Phi: gradients by autograd."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from . import ALMOST_OPAQUE


def neus_alpha_torch(
    sdf: Float[Tensor, "samples"], slope: Float[Tensor, "samples"], inv_s: float, step: float, cos_anneal: float
) -> Float[Tensor, "samples"]:
    entering = torch.relu(0.5 - 0.5 * slope) * (1 - cos_anneal) + torch.relu(-slope) * cos_anneal
    before = logsigmoid((sdf + entering * (0.5 * step)) * inv_s)
    after = logsigmoid((sdf - entering * (0.5 * step)) * inv_s)
    return (-torch.expm1(after - before)).clamp_max(ALMOST_OPAQUE)
