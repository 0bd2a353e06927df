"""Opacity of a signed distance field (Wang et al. 2021, "NeuS")."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def neus_alpha(
    sdf: Float[Tensor, "samples"],
    slope: Float[Tensor, "samples"],
    inv_s: float,
    step: float,
    cos_anneal: float,
) -> Float[Tensor, "samples"]:
    """Opacity of an interval of length `step` around each sample (eq. 13, the sdf taken as linear within it).

    alpha = max(0, 1 - Phi(f_after) / Phi(f_before)) with the logistic Phi(x) = 1 / (1 + exp(-inv_s x)), by way of
    log Phi, so that it is exact deep inside too, where both Phi underflow.

    Args:
        slope: d sdf / d distance along the ray: gradient times direction, negative where the ray enters.
        inv_s: in 1/unit length of `sdf` and `step`.
        cos_anneal: 0 blunts the dependence on the slope (helps while normals are wrong), 1 is the paper's formula.
    """
    entering = torch.relu(0.5 - 0.5 * slope) * (1 - cos_anneal) + torch.relu(-slope) * cos_anneal
    before = logsigmoid((sdf + entering * (0.5 * step)) * inv_s)
    after = logsigmoid((sdf - entering * (0.5 * step)) * inv_s)
    return (-torch.expm1(after - before)).clamp_max(1.0 - 1e-6)
