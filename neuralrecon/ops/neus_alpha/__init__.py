"""Opacity of a signed distance field (Wang et al. 2021, "NeuS")."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..backends import Backend, backend_for

ALMOST_OPAQUE = 1.0 - 1e-6


def neus_alpha(
    sdf: Float[Tensor, "samples"],
    slope: Float[Tensor, "samples"],
    inv_s: float,
    step: float,
    cos_anneal: float,
) -> Float[Tensor, "samples"]:
    """Opacity of an interval of length `step` around each sample (eq. 13, the sdf taken as linear within it).

    alpha = max(0, 1 - Phi(f_after) / Phi(f_before)) with the logistic Phi(x) = 1 / (1 + exp(-inv_s x)), exact deep
    inside too, where both Phi underflow. Differentiable once with respect to `sdf` and `slope`.

    Args:
        slope: d sdf / d distance along the ray: gradient times direction, negative where the ray enters.
        inv_s: in 1/unit length of `sdf` and `step`.
        cos_anneal: 0 blunts the dependence on the slope (helps while normals are wrong), 1 is the paper's formula.
    """
    if backend_for(sdf) == Backend.cpu:
        from ._cpu import neus_alpha_cpu

        return neus_alpha_cpu(sdf, slope, inv_s, step, cos_anneal)
    from ._torch import neus_alpha_torch

    return neus_alpha_torch(sdf, slope, inv_s, step, cos_anneal)
