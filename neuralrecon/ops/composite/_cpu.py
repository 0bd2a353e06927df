"""`composite` in Numba: one pass forward, one backward, no rectangle."""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


def composite_cpu(
    alpha: Float[Tensor, "samples"], ray_starts: Int[Tensor, "rays_plus_one"]
) -> tuple[Float[Tensor, "samples"], Float[Tensor, "rays"]]:
    return _Composite.apply(alpha, ray_starts)  # pyright: ignore[reportReturnType]


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, alpha: Tensor, ray_starts: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.empty_like(alpha)
        left = torch.empty(len(ray_starts) - 1)
        _forward(alpha.detach().numpy(), ray_starts.numpy(), weights.numpy(), left.numpy())
        ctx.save_for_backward(alpha, ray_starts, weights)
        return weights, left

    @staticmethod
    def backward(ctx, d_weights: Tensor, d_left: Tensor):
        alpha, ray_starts, weights = ctx.saved_tensors
        d_alpha = torch.empty_like(alpha)
        _backward(
            alpha.detach().numpy(),
            ray_starts.numpy(),
            weights.numpy(),
            d_weights.contiguous().numpy(),
            d_left.contiguous().numpy(),
            d_alpha.numpy(),
        )
        return d_alpha, None


@numba.njit(cache=True)
def _forward(alpha, ray_starts, weights, left):
    for ray in range(len(ray_starts) - 1):
        light = np.float32(1.0)
        for i in range(ray_starts[ray], ray_starts[ray + 1]):
            weights[i] = light * alpha[i]
            light *= np.float32(1.0) - alpha[i]
        left[ray] = light


@numba.njit(cache=True)
def _backward(alpha, ray_starts, weights, d_weights, d_left, d_alpha):
    # dL/dalpha_i = T_i dL/dw_i - (sum_{j>i} w_j dL/dw_j + T_end dL/dT_end) / (1 - alpha_i). Carrying
    # behind_i = (the bracket) / T_{i+1} from the back avoids the division, which alpha near 1 would spoil.
    for ray in range(len(ray_starts) - 1):
        first, last = ray_starts[ray], ray_starts[ray + 1]
        light = np.float32(1.0)
        for i in range(first, last):
            d_alpha[i] = light
            light *= np.float32(1.0) - alpha[i]
        behind = d_left[ray]
        for i in range(last - 1, first - 1, -1):
            d_alpha[i] *= d_weights[i] - behind
            behind = alpha[i] * d_weights[i] + (np.float32(1.0) - alpha[i]) * behind
