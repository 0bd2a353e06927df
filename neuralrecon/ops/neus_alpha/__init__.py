"""Opacity of a signed distance field (Wang et al. 2021, "NeuS")."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from ..backends import Backend, backend_for

ALMOST_OPAQUE = 1.0 - 1e-6


def neus_alpha(
    before: Float[Tensor, "samples"], after: Float[Tensor, "samples"], inv_s: float
) -> Float[Tensor, "samples"]:
    """Opacity of intervals of a ray, from the sdf at both ends (eq. 13).

    alpha = max(0, 1 - Phi(after) / Phi(before)) with the logistic Phi(x) = 1 / (1 + exp(-inv_s x)), exact deep
    inside too, where both Phi underflow. Differentiable once with respect to `before` and `after`.

    Args:
        inv_s: in 1/unit length of `before` and `after`.
    """
    if backend_for(before) == Backend.cpu:
        from ._cpu import neus_alpha_cpu

        return neus_alpha_cpu(before, after, inv_s)
    from ._torch import neus_alpha_torch

    return neus_alpha_torch(before, after, inv_s)
