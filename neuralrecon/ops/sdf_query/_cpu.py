"""`sdf_query` with Numba for what is per sample and BLAS for what is a product; the algebra is in the contract."""

from __future__ import annotations

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..hash_encode import HashGrid
from ..hash_encode._cpu import backward_product_kernel, encode_level_major, layout_arrays
from ..threads import use_threads
from . import SdfNetwork


def sdf_query_cpu(
    points: Float[Tensor, "points 3"], network: SdfNetwork, grid: HashGrid, levels: int
) -> tuple[Float[Tensor, "points"], Float[Tensor, "points 3"]]:
    return _SdfQuery.apply(  # pyright: ignore[reportReturnType]
        points,
        network.table,
        network.hidden_weight,
        network.hidden_bias,
        network.out_weight,
        network.out_bias,
        grid,
        levels,
    )


class _SdfQuery(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points, table, hidden_weight, hidden_bias, out_weight, out_bias, grid, levels):
        n, used = points.shape[0], 3 + grid.features_per_level * levels
        points_soa = points.t().contiguous()
        inputs = torch.empty(used, n)
        torch.sub(points_soa, 0.5, out=inputs[:3])
        jacobian = encode_level_major(points_soa, table.detach(), grid, levels, inputs[3:], with_jacobian=True)
        weight = hidden_weight.detach()[:, :used].contiguous()
        hidden = torch.addmm(hidden_bias.detach()[:, None], weight, inputs)
        sdf = torch.empty(n)
        mask = torch.empty_like(hidden)
        threads = use_threads()
        bias = np.float32(out_bias.detach())
        _activate(hidden.numpy(), out_weight.detach().numpy(), bias, threads, mask.numpy(), sdf.numpy())
        by_input = (weight * out_weight.detach()[:, None]).t() @ mask
        gradient = torch.empty(3, n)
        _pull(by_input.numpy(), jacobian.numpy(), threads, gradient.numpy())
        ctx.save_for_backward(
            points_soa, inputs, jacobian, mask, by_input, hidden_weight, hidden_bias, out_weight, table
        )
        ctx.grid, ctx.levels = grid, levels
        return sdf, gradient.t()

    @staticmethod
    def backward(ctx, d_sdf, d_gradient):
        points_soa, inputs, jacobian, mask, by_input, hidden_weight, hidden_bias, out_weight, table = ctx.saved_tensors
        d_sdf, d_gradient = d_sdf.contiguous(), d_gradient.t().contiguous()
        used = inputs.shape[0]
        threads = use_threads()
        pushed = torch.empty(used + 1, inputs.shape[1])
        _push(inputs.numpy(), jacobian.numpy(), d_sdf.numpy(), d_gradient.numpy(), threads, pushed.numpy())
        sums = mask @ pushed.t()
        by_weight, by_bias = sums[:, :used], sums[:, used]
        d_hidden_weight = torch.zeros_like(hidden_weight)
        d_hidden_weight[:, :used] = out_weight[:, None] * by_weight
        d_out_weight = (hidden_weight[:, :used] * by_weight).sum(dim=1) + hidden_bias * by_bias
        d_table = torch.zeros_like(table)
        backward_product_kernel(
            points_soa.numpy(),
            by_input[3:].numpy(),
            d_sdf.numpy(),
            d_gradient.numpy(),
            *layout_arrays(ctx.grid),
            ctx.levels,
            threads,
            d_table.numpy(),
        )
        return None, d_table, d_hidden_weight, out_weight * by_bias, d_out_weight, d_sdf.sum(), None, None


@numba.njit(parallel=True, cache=True, fastmath=True)
def _activate(hidden, out_weight, out_bias, threads, mask, sdf):
    width, n = hidden.shape
    run = (n + threads - 1) // threads
    for thread in numba.prange(threads):
        first, last = thread * run, min(n, (thread + 1) * run)
        for i in range(first, last):
            sdf[i] = out_bias
        for j in range(width):
            w = out_weight[j]
            for i in range(first, last):
                h = hidden[j, i]
                m = np.float32(1.0) if h > np.float32(0.0) else np.float32(0.0)
                mask[j, i] = m
                sdf[i] += w * m * h


@numba.njit(parallel=True, cache=True, fastmath=True)
def _pull(by_input, jacobian, threads, gradient):
    width, n = jacobian.shape[1], jacobian.shape[2]
    run = (n + threads - 1) // threads
    for thread in numba.prange(threads):
        first, last = thread * run, min(n, (thread + 1) * run)
        for k in range(3):
            for i in range(first, last):
                gradient[k, i] = by_input[k, i]
            for c in range(width):
                for i in range(first, last):
                    gradient[k, i] += jacobian[k, c, i] * by_input[3 + c, i]


@numba.njit(parallel=True, cache=True, fastmath=True)
def _push(inputs, jacobian, d_sdf, d_gradient, threads, pushed):
    used, n = inputs.shape
    run = (n + threads - 1) // threads
    for thread in numba.prange(threads):
        first, last = thread * run, min(n, (thread + 1) * run)
        for c in range(3):
            for i in range(first, last):
                pushed[c, i] = inputs[c, i] * d_sdf[i] + d_gradient[c, i]
        for c in range(used - 3):
            for i in range(first, last):
                pushed[3 + c, i] = (
                    inputs[3 + c, i] * d_sdf[i]
                    + jacobian[0, c, i] * d_gradient[0, i]
                    + jacobian[1, c, i] * d_gradient[1, i]
                    + jacobian[2, c, i] * d_gradient[2, i]
                )
        for i in range(first, last):
            pushed[used, i] = d_sdf[i]
