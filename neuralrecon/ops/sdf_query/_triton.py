"""`sdf_query` in Triton for what is per sample and cuBLAS for what is a product; the algebra is in the contract."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from ..hash_encode import HashGrid
from ..hash_encode._triton import add_pulled, encode_feature_major, table_gradient_of_product
from . import SdfNetwork

# A kernel is launched with more than its function takes, and with plain numbers for its constants.
# pyright: reportCallIssue=false, reportArgumentType=false, reportGeneralTypeIssues=false

# One sample a lane; rows are walked one after the other, so every access coalesces and few registers are needed.
BLOCK = 256


def sdf_query_triton(
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
        n, used = len(points), 3 + grid.features_per_level * levels
        points_soa = points.t().contiguous()
        inputs = table.new_empty(used, n)
        torch.sub(points_soa, 0.5, out=inputs[:3])
        jacobian = encode_feature_major(points_soa, table, grid, levels, inputs[3:], with_jacobian=True)
        weight = hidden_weight[:, :used]
        mask = torch.addmm(hidden_bias[:, None], weight, inputs)
        sdf = torch.empty_like(inputs[0])
        if n:
            with torch.cuda.device_of(table):
                grid_1d = (triton.cdiv(n, BLOCK),)
                _activate[grid_1d](mask, out_weight.contiguous(), out_bias, sdf, n, len(mask), BLOCK=BLOCK)
        by_input = (weight * out_weight[:, None]).t() @ mask
        gradient = by_input[:3].clone()
        add_pulled(by_input[3:], jacobian, gradient)
        ctx.save_for_backward(
            points_soa, inputs, jacobian, mask, by_input, hidden_weight, hidden_bias, out_weight, table
        )
        ctx.grid, ctx.levels = grid, levels
        return sdf, gradient.t()

    @staticmethod
    def backward(ctx, d_sdf, d_gradient):
        points_soa, inputs, jacobian, mask, by_input, hidden_weight, hidden_bias, out_weight, table = ctx.saved_tensors
        d_sdf, d_gradient = d_sdf.contiguous(), d_gradient.t().contiguous()
        used, n = inputs.shape
        pushed = torch.empty_like(inputs)
        torch.addcmul(d_gradient, inputs[:3], d_sdf, out=pushed[:3])
        if n and used > 3:
            with torch.cuda.device_of(table):
                grid = (triton.cdiv(n, BLOCK), used - 3)
                _push[grid](inputs, jacobian, d_sdf, d_gradient, pushed, n, used - 3, BLOCK=BLOCK)
        by_weight, by_bias = mask @ pushed.t(), mask @ d_sdf
        d_hidden_weight = torch.zeros_like(hidden_weight)
        d_hidden_weight[:, :used] = out_weight[:, None] * by_weight
        d_out_weight = (hidden_weight[:, :used] * by_weight).sum(dim=1) + hidden_bias * by_bias
        d_table = table_gradient_of_product(points_soa, by_input[3:], d_sdf, d_gradient, table, ctx.grid, ctx.levels)
        return None, d_table, d_hidden_weight, out_weight * by_bias, d_out_weight, d_sdf.sum(), None, None


@triton.jit
def _activate(hidden, out_weight, out_bias, sdf, n, width, BLOCK: tl.constexpr):
    """Sum up the sdf over the hidden rows, and leave in each row's place whether it is positive."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    total = tl.zeros([BLOCK], dtype=tl.float32) + tl.load(out_bias)
    at = hidden + i
    j = 0
    while j < width:
        h = tl.load(at, mask=inside, other=0.0)
        tl.store(at, (h > 0.0).to(tl.float32), mask=inside)
        total += tl.load(out_weight + j) * tl.maximum(h, 0.0)
        at += n
        j += 1
    tl.store(sdf + i, total, mask=inside)


@triton.jit
def _push(inputs, jacobian, d_sdf, d_gradient, pushed, n, rows, BLOCK: tl.constexpr):
    """Row 3 + c of pushed = features[c] * d_sdf + jacobian[:, c] . d_gradient; one program a row and block."""
    row = tl.program_id(1).to(tl.int64)
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    plane = tl.cast(n, tl.int64) * rows
    slope = jacobian + row * n + i
    total = tl.load(inputs + (row + 3) * n + i, mask=inside, other=0.0) * tl.load(d_sdf + i, mask=inside, other=0.0)
    total += tl.load(slope, mask=inside, other=0.0) * tl.load(d_gradient + i, mask=inside, other=0.0)
    total += tl.load(slope + plane, mask=inside, other=0.0) * tl.load(d_gradient + n + i, mask=inside, other=0.0)
    total += tl.load(slope + 2 * plane, mask=inside, other=0.0) * tl.load(
        d_gradient + 2 * n + i, mask=inside, other=0.0
    )
    tl.store(pushed + (row + 3) * n + i, total, mask=inside)
