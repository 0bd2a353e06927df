"""Front-to-back compositing of packed samples."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from ..backends import Backend, backend_for


def composite(
    alpha: Float[Tensor, "samples"], ray_starts: Int[Tensor, "rays_plus_one"]
) -> tuple[Float[Tensor, "samples"], Float[Tensor, "rays"]]:
    """Weights T_i alpha_i with T_i = prod_{j<i} (1 - alpha_j) (Mildenhall et al. 2020, eq. 3), and the light left.

    Samples of ray r are `ray_starts[r] : ray_starts[r + 1]`, front to back; alpha lies in [0, 1).
    Differentiable once with respect to `alpha`.

    Returns:
        weight of each sample, and transmittance behind the last sample of each ray (1 for a ray without samples).
    """
    backend = backend_for(alpha, Backend.nerfacc)
    if backend == Backend.cpu:
        from ._cpu import composite_cpu

        return composite_cpu(alpha, ray_starts)
    if backend == Backend.triton:
        from ._triton import composite_triton

        return composite_triton(alpha, ray_starts)
    if backend == Backend.nerfacc:
        from ._nerfacc import composite_nerfacc

        return composite_nerfacc(alpha, ray_starts)
    from ._torch import composite_torch

    return composite_torch(alpha, ray_starts)
