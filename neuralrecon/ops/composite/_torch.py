"""The definition of `composite`: a rays x samples rectangle, filled with alpha = 0 where a ray has no sample."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def composite_torch(
    alpha: Float[Tensor, "samples"], ray_starts: Int[Tensor, "rays_plus_one"]
) -> tuple[Float[Tensor, "samples"], Float[Tensor, "rays"]]:
    counts = ray_starts.diff()
    width = int(counts.max()) if counts.numel() else 0
    column = torch.arange(width, device=alpha.device)
    filled = column < counts[:, None]
    rectangle = alpha.new_zeros(filled.shape).masked_scatter(filled, alpha)
    left = torch.cumprod(torch.cat([rectangle.new_ones(len(counts), 1), 1 - rectangle], dim=1), dim=1)
    return (left[:, :-1] * rectangle)[filled], left[:, -1]
