"""`neus_alpha` in Numba: three exponentials a sample forward, none backward."""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..threads import use_threads
from . import ALMOST_OPAQUE

_ZERO, _ONE, _MOST = np.float32(0.0), np.float32(1.0), np.float32(ALMOST_OPAQUE)
_BLOCK = 512  # samples that a thread takes at a time


def neus_alpha_cpu(
    before: Float[Tensor, "samples"], after: Float[Tensor, "samples"], inv_s: float
) -> Float[Tensor, "samples"]:
    return _NeusAlpha.apply(before, after, inv_s)  # pyright: ignore[reportReturnType]


class _NeusAlpha(torch.autograd.Function):
    @staticmethod
    def forward(ctx, before: Tensor, after: Tensor, inv_s: float) -> Tensor:
        alpha, by_before, by_after = torch.empty(3, len(before)).unbind(0)
        use_threads()
        ends = before.contiguous().numpy(), after.contiguous().numpy()
        _forward(*ends, np.float32(inv_s), alpha.numpy(), by_before.numpy(), by_after.numpy())
        ctx.save_for_backward(by_before, by_after)
        return alpha

    @staticmethod
    def backward(ctx, d_alpha: Tensor):
        by_before, by_after = ctx.saved_tensors
        return d_alpha * by_before, d_alpha * by_after, None


@numba.njit(parallel=True, cache=True)
def _forward(before, after, inv_s, alpha, by_before, by_after):
    for block in numba.prange((len(before) + _BLOCK - 1) // _BLOCK):
        last = min(len(before), (block + 1) * _BLOCK)
        _alpha(block * _BLOCK, last, before, after, inv_s, alpha, by_before, by_after)


@numba.njit(cache=True)
def _alpha(first, last, before, after, inv_s, alpha, by_before, by_after):
    # Phi(a) / Phi(b) = exp(min(a, 0) - min(b, 0)) (1 + exp(-|b|)) / (1 + exp(-|a|)), and Phi' = inv_s Phi (1 - Phi)
    for i in range(first, last):
        b, a = before[i] * inv_s, after[i] * inv_s
        small_b, small_a = np.exp(-abs(b)), np.exp(-abs(a))
        beyond_b = (small_b if b > _ZERO else _ONE) / (_ONE + small_b)  # 1 - Phi
        beyond_a = (small_a if a > _ZERO else _ONE) / (_ONE + small_a)
        # both min are taken off at once: deep inside each is in the thousands, their difference is not
        fall = (after[i] - before[i]) * inv_s if b < _ZERO else min(a, _ZERO)
        left = np.exp(fall) * (_ONE + small_b) / (_ONE + small_a)
        rises = after[i] >= before[i]
        alpha[i] = _ZERO if rises else min(_ONE - left, _MOST)
        flat = rises or alpha[i] == _MOST
        by_before[i] = _ZERO if flat else left * inv_s * beyond_b
        by_after[i] = _ZERO if flat else -left * inv_s * beyond_a
