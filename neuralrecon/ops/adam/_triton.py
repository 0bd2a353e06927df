"""`adam_step` in Triton: one pass, which reads the gradient, and only where it is not zero the rest."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import AdamSettings

# A kernel is launched with more than its function takes, and with plain numbers for its constants.
# pyright: reportCallIssue=false, reportArgumentType=false

BLOCK = 1024


def adam_step_triton(
    parameter: Tensor, gradient: Tensor, mean: Tensor, variance: Tensor, settings: AdamSettings
) -> None:
    n = parameter.numel()
    arrays = tuple(x.detach().view(-1) for x in (parameter, gradient, mean, variance))
    if n:
        with torch.cuda.device_of(parameter):
            _step[(triton.cdiv(n, BLOCK),)](
                *arrays, n, *settings.betas, *settings.scales, settings.eps, BLOCK=BLOCK, num_warps=4
            )


@triton.jit
def _step(
    parameter,
    gradient,
    mean,
    variance,
    n,
    keep_mean,
    keep_variance,
    by_mean,
    by_variance,
    eps,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    g = tl.load(gradient + i, mask=i < n, other=0.0)
    touched = g != 0.0
    m = keep_mean * tl.load(mean + i, mask=touched, other=0.0) + (1.0 - keep_mean) * g
    v = keep_variance * tl.load(variance + i, mask=touched, other=0.0) + (1.0 - keep_variance) * g * g
    change = by_mean * m / (tl.sqrt(by_variance * v) + eps)
    tl.store(parameter + i, tl.load(parameter + i, mask=touched, other=0.0) - change, mask=touched)
    tl.store(mean + i, m, mask=touched)
    tl.store(variance + i, v, mask=touched)
    tl.store(gradient + i, tl.zeros([BLOCK], dtype=tl.float32), mask=touched)
