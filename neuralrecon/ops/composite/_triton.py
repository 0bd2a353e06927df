"""`composite` in Triton: a lane walks along a ray, as `_cpu` does; both passes are deterministic."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

# A kernel is launched with more than its function takes, and with plain numbers for its constants.
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

# Rays a program: one warp, which waits only for its own longest ray. A batch of 8192 rays is 256 programs.
BLOCK = 32


def composite_triton(
    alpha: Float[Tensor, "samples"], ray_starts: Int[Tensor, "rays_plus_one"]
) -> tuple[Float[Tensor, "samples"], Float[Tensor, "rays"]]:
    return _Composite.apply(alpha, ray_starts)  # pyright: ignore[reportReturnType]


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx, alpha: Tensor, ray_starts: Tensor) -> tuple[Tensor, Tensor]:
        alpha = alpha.contiguous()
        n_rays = len(ray_starts) - 1
        weights, light, left = torch.empty_like(alpha), torch.empty_like(alpha), alpha.new_empty(n_rays)
        if n_rays:
            with torch.cuda.device_of(alpha):
                grid = (triton.cdiv(n_rays, BLOCK),)
                _forward[grid](alpha, ray_starts, weights, light, left, n_rays, BLOCK=BLOCK, num_warps=1)
        ctx.save_for_backward(alpha, ray_starts, light)
        return weights, left

    @staticmethod
    def backward(ctx, d_weights: Tensor, d_left: Tensor):
        alpha, ray_starts, light = ctx.saved_tensors
        d_alpha, n_rays = torch.empty_like(alpha), len(ray_starts) - 1
        if n_rays:
            given = alpha, ray_starts, light, d_weights.contiguous(), d_left.contiguous()
            with torch.cuda.device_of(alpha):
                _backward[(triton.cdiv(n_rays, BLOCK),)](*given, d_alpha, n_rays, BLOCK=BLOCK, num_warps=1)
        return d_alpha, None


@triton.jit
def _forward(alpha, ray_starts, weights, light, left, n_rays, BLOCK: tl.constexpr):
    ray = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = ray < n_rays
    first = tl.load(ray_starts + ray, mask=there, other=0)
    last = tl.load(ray_starts + ray + 1, mask=there, other=0)
    through = tl.full([BLOCK], 1.0, dtype=tl.float32)
    longest = tl.max(last - first, axis=0)
    k = 0
    while k < longest:
        i = first + k
        more = i < last
        a = tl.load(alpha + i, mask=more, other=0.0)  # 0 behind the ray's end leaves its light as it is
        tl.store(weights + i, through * a, mask=more)
        tl.store(light + i, through, mask=more)
        through *= 1.0 - a
        k += 1
    tl.store(left + ray, through, mask=there)


@triton.jit
def _backward(alpha, ray_starts, light, d_weights, d_left, d_alpha, n_rays, BLOCK: tl.constexpr):
    # `behind` is what the light that passes sample i is worth, carried from the back as in `_cpu`: no division
    ray = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    there = ray < n_rays
    first = tl.load(ray_starts + ray, mask=there, other=0)
    last = tl.load(ray_starts + ray + 1, mask=there, other=0)
    behind = tl.load(d_left + ray, mask=there, other=0.0)
    longest = tl.max(last - first, axis=0)
    k = 0
    while k < longest:
        i = last - 1 - k
        more = i >= first
        a = tl.load(alpha + i, mask=more, other=0.0)
        d = tl.load(d_weights + i, mask=more, other=0.0)
        tl.store(d_alpha + i, tl.load(light + i, mask=more, other=0.0) * (d - behind), mask=more)
        behind = a * d + (1.0 - a) * behind
        k += 1
