"""`ray_motion` in Numba: nothing forward, sums over each ray's points backward."""

from __future__ import annotations

import numba
import torch
from torch import Tensor


def ray_motion_cpu(shift: Tensor, spread: Tensor, distances: Tensor, of_ray: Tensor) -> Tensor:
    return _RayMotion.apply(shift, spread, distances, of_ray)  # pyright: ignore[reportReturnType]


class _RayMotion(torch.autograd.Function):
    @staticmethod
    def forward(ctx, shift: Tensor, spread: Tensor, distances: Tensor, of_ray: Tensor) -> Tensor:
        ctx.save_for_backward(distances, of_ray)
        ctx.n_rays = len(shift)
        return torch.zeros(len(distances), 3)

    @staticmethod
    def backward(ctx, d_moved: Tensor):
        distances, of_ray = ctx.saved_tensors
        d_shift, d_spread = torch.zeros(2, ctx.n_rays, 3).unbind(0)
        _sum_up(
            d_moved.contiguous().numpy(),
            distances.contiguous().numpy(),
            of_ray.numpy(),
            d_shift.numpy(),
            d_spread.numpy(),
        )
        return d_shift, d_spread, None, None


@numba.njit(cache=True)
def _sum_up(d_moved, distances, of_ray, d_shift, d_spread):
    for i in range(len(of_ray)):
        ray, t = of_ray[i], distances[i]
        for axis in range(3):
            d_shift[ray, axis] += d_moved[i, axis]
            d_spread[ray, axis] += t * d_moved[i, axis]
