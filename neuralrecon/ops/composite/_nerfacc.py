"""`composite` by nerfacc's packed scan, which needs CUDA, and nvcc at its first use.

Its backward pass divides by 1 - alpha, so where alpha is within about 1e-6 of 1 its gradients are coarser than ours.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def composite_nerfacc(
    alpha: Float[Tensor, "samples"], ray_starts: Int[Tensor, "rays_plus_one"]
) -> tuple[Float[Tensor, "samples"], Float[Tensor, "rays"]]:
    from nerfacc import render_weight_from_alpha  # prints when it is imported: only once it is wanted

    counts = ray_starts.diff()
    weights, light = render_weight_from_alpha(alpha, packed_info=torch.stack([ray_starts[:-1], counts], dim=-1))
    behind = torch.cat([light * (1 - alpha), alpha.new_ones(1)])
    return weights, behind[torch.where(counts > 0, ray_starts[1:] - 1, len(alpha))]
