"""`neus_alpha` in Numba: three exponentials a sample forward, none backward."""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..threads import use_threads
from . import ALMOST_OPAQUE

_ZERO, _HALF, _ONE, _MOST = np.float32(0.0), np.float32(0.5), np.float32(1.0), np.float32(ALMOST_OPAQUE)
_BLOCK = 512  # samples that a thread takes at a time


def neus_alpha_cpu(
    sdf: Float[Tensor, "samples"], slope: Float[Tensor, "samples"], inv_s: float, step: float, cos_anneal: float
) -> Float[Tensor, "samples"]:
    return _NeusAlpha.apply(sdf, slope, inv_s, step, cos_anneal)  # pyright: ignore[reportReturnType]


class _NeusAlpha(torch.autograd.Function):
    @staticmethod
    def forward(ctx, sdf: Tensor, slope: Tensor, inv_s: float, step: float, cos_anneal: float) -> Tensor:
        alpha, by_sdf, by_slope = torch.empty(3, len(sdf)).unbind(0)
        use_threads()
        _forward(
            sdf.contiguous().numpy(),
            slope.contiguous().numpy(),
            np.float32(inv_s),
            np.float32(0.5 * step),
            np.float32(cos_anneal),
            alpha.numpy(),
            by_sdf.numpy(),
            by_slope.numpy(),
        )
        ctx.save_for_backward(by_sdf, by_slope)
        return alpha

    @staticmethod
    def backward(ctx, d_alpha: Tensor):
        by_sdf, by_slope = ctx.saved_tensors
        return d_alpha * by_sdf, d_alpha * by_slope, None, None, None


@numba.njit(parallel=True, cache=True)
def _forward(sdf, slope, inv_s, half, cos_anneal, alpha, by_sdf, by_slope):
    for block in numba.prange((len(sdf) + _BLOCK - 1) // _BLOCK):
        last = min(len(sdf), (block + 1) * _BLOCK)
        _alpha(block * _BLOCK, last, sdf, slope, inv_s, half, cos_anneal, alpha, by_sdf, by_slope)


@numba.njit(cache=True)
def _alpha(first, last, sdf, slope, inv_s, half, cos_anneal, alpha, by_sdf, by_slope):
    # Phi(a) / Phi(b) = exp(min(a, 0) - min(b, 0)) (1 + exp(-|b|)) / (1 + exp(-|a|)), and Phi' = inv_s Phi (1 - Phi)
    for i in range(first, last):
        blunt = max(_HALF - _HALF * slope[i], _ZERO)
        entering = blunt * (_ONE - cos_anneal) + max(-slope[i], _ZERO) * cos_anneal
        b, a = (sdf[i] + entering * half) * inv_s, (sdf[i] - entering * half) * inv_s
        small_b, small_a = np.exp(-abs(b)), np.exp(-abs(a))
        beyond_b = (small_b if b > _ZERO else _ONE) / (_ONE + small_b)  # 1 - Phi
        beyond_a = (small_a if a > _ZERO else _ONE) / (_ONE + small_a)
        # both min are taken off at once: deep inside each is in the thousands, their difference is not
        step = -_ONE * (entering * half) * (inv_s + inv_s) if b < _ZERO else min(a, _ZERO)
        left = np.exp(step) * (_ONE + small_b) / (_ONE + small_a)
        alpha[i] = min(_ONE - left, _MOST)
        clamped = alpha[i] == _MOST
        by_value = left * inv_s
        by_entering = left * inv_s * half * (beyond_a + beyond_b)
        slope_of_entering = (_ZERO if blunt == _ZERO else -_HALF) * (_ONE - cos_anneal)
        slope_of_entering -= cos_anneal if slope[i] < _ZERO else _ZERO
        by_sdf[i] = _ZERO if clamped else by_value * (beyond_b - beyond_a)
        by_slope[i] = _ZERO if clamped else by_entering * slope_of_entering
