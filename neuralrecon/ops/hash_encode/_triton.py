"""`hash_encode` in Triton. Arrays are feature-major in memory, so that a block's loads and stores coalesce.

A program takes one block of points on one level. Blocks run fastest along the launch, so the programs at work share one
level, whose table (2 MB at 2^18 entries) stays in the second-level cache. The forward pass is deterministic; the
backward pass adds by atomics, in an order that changes from run to run.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import triton
from jaxtyping import Float, Int
from torch import Tensor

from ..buffers import take_zeros
from . import HashGrid
from ._triton_kernels import encode, encode_backward, encode_backward_of_product, pull

# A kernel is launched with more than its function takes, and with plain numbers for its constants.
# pyright: reportCallIssue=false, reportArgumentType=false

# One point for each of 128 threads: all the layouts that the compiler picks then put a point's values on one thread. At
# two points a thread it moved every corner's weight between threads, with 87 barriers in place of 7.
BLOCK = 128


def hash_encode_triton(
    points: Float[Tensor, "points 3"], table: Float[Tensor, "entries f"], grid: HashGrid, levels: int
) -> tuple[Float[Tensor, "points features"], Float[Tensor, "points features 3"]]:
    return _HashEncode.apply(points, table, grid, levels)  # pyright: ignore[reportReturnType]


def hash_features_triton(
    points: Float[Tensor, "points 3"], table: Float[Tensor, "entries f"], grid: HashGrid, levels: int
) -> Float[Tensor, "points features"]:
    return _HashFeatures.apply(points, table, grid, levels)  # pyright: ignore[reportReturnType]


class _HashEncode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points: Tensor, table: Tensor, grid: HashGrid, levels: int) -> tuple[Tensor, Tensor]:
        points_soa = points.t().contiguous()
        features = table.new_empty(grid.n_features, len(points))
        jacobian = encode_feature_major(points_soa, table, grid, levels, features, with_jacobian=True)
        ctx.save_for_backward(points_soa, table)
        ctx.set_materialize_grads(False)  # a Jacobian that nobody differentiates costs nothing
        ctx.grid, ctx.levels = grid, levels
        return features.t(), jacobian.permute(2, 1, 0)

    @staticmethod
    def backward(ctx, d_features, d_jacobian):
        points_soa, table = ctx.saved_tensors
        if d_features is None:
            d_features = table.new_zeros(points_soa.shape[1], ctx.grid.n_features)
        slopes = None if d_jacobian is None else d_jacobian.permute(2, 1, 0).contiguous()
        return (
            None,
            table_gradient(points_soa, d_features.t().contiguous(), slopes, table, ctx.grid, ctx.levels),
            None,
            None,
        )


class _HashFeatures(torch.autograd.Function):
    """Features alone; the Jacobian is kept for the backward pass if that asks for derivatives by position."""

    @staticmethod
    def forward(ctx, points: Tensor, table: Tensor, grid: HashGrid, levels: int) -> Tensor:
        points_soa, by_points = points.t().contiguous(), ctx.needs_input_grad[0]
        features = table.new_empty(grid.n_features, len(points))
        jacobian = encode_feature_major(points_soa, table, grid, levels, features, with_jacobian=by_points)
        ctx.save_for_backward(points_soa, table, jacobian)
        ctx.grid, ctx.levels = grid, levels
        return features.t()

    @staticmethod
    def backward(ctx, d_features):
        points_soa, table, jacobian = ctx.saved_tensors
        d_features = d_features.t().contiguous()
        d_points = None
        if ctx.needs_input_grad[0]:
            d_points = torch.zeros_like(points_soa)
            add_pulled(d_features, jacobian, d_points)
            d_points = torch.where((points_soa >= 0) & (points_soa <= 1), d_points, 0).t()  # outside it is clamped
        d_table = None
        if ctx.needs_input_grad[1]:
            d_table = table_gradient(points_soa, d_features, None, table, ctx.grid, ctx.levels)
        return d_points, d_table, None, None


def encode_feature_major(
    points_soa: Float[Tensor, "3 points"],
    table: Float[Tensor, "entries f"],
    grid: HashGrid,
    levels: int,
    features: Float[Tensor, "features points"],
    *,
    with_jacobian: bool,
) -> Float[Tensor, "3 features points"]:
    """Fill `features`, whose rows must follow each other in memory, and return the Jacobian (empty if not wanted).

    Rows beyond the levels in use become zero.
    """
    width, n = features.shape
    jacobian = table.new_empty(3, width, n) if with_jacobian else table.new_empty(0, 0, 0)
    used = levels * grid.features_per_level
    features[used:].zero_()
    jacobian[:, used:].zero_()
    if n == 0 or levels == 0:
        return jacobian
    with torch.cuda.device_of(table):
        encode[(triton.cdiv(n, BLOCK), levels)](
            points_soa,
            table.contiguous(),
            layout(grid, table.device),
            features,
            jacobian if with_jacobian else features,
            n,
            width,
            brick_mask(grid),
            F=grid.features_per_level,
            WITH_JACOBIAN=with_jacobian,
            BLOCK=BLOCK,
            num_warps=4,
        )
    return jacobian


def table_gradient(
    points_soa: Float[Tensor, "3 points"],
    d_features: Float[Tensor, "features points"],
    d_jacobian: Float[Tensor, "3 features points"] | None,
    table: Float[Tensor, "entries f"],
    grid: HashGrid,
    levels: int,
) -> Float[Tensor, "entries f"]:
    """The table's gradient; no `d_jacobian` stands for zeros."""
    d_table = take_zeros(table.shape, table.device)
    n = points_soa.shape[1]
    if n and levels:
        with torch.cuda.device_of(table):
            encode_backward[(triton.cdiv(n, BLOCK), levels)](
                points_soa,
                d_features,
                d_features if d_jacobian is None else d_jacobian,
                layout(grid, table.device),
                d_table,
                n,
                grid.n_features,
                brick_mask(grid),
                F=grid.features_per_level,
                WITH_JACOBIAN=d_jacobian is not None,
                BLOCK=BLOCK,
                num_warps=4,
            )
    return d_table


def table_gradient_of_product(
    points_soa: Float[Tensor, "3 points"],
    by_feature: Float[Tensor, "features points"],
    d_sdf: Float[Tensor, "points"],
    d_gradient: Float[Tensor, "3 points"],
    table: Float[Tensor, "entries f"],
    grid: HashGrid,
    levels: int,
) -> Float[Tensor, "entries f"]:
    """The table's gradient for d_features = by_feature * d_sdf, d_jacobian = by_feature * d_gradient, never stored."""
    d_table = take_zeros(table.shape, table.device)
    n = points_soa.shape[1]
    if n and levels:
        with torch.cuda.device_of(table):
            encode_backward_of_product[(triton.cdiv(n, BLOCK), levels)](
                points_soa,
                by_feature,
                d_sdf,
                d_gradient,
                layout(grid, table.device),
                d_table,
                n,
                brick_mask(grid),
                F=grid.features_per_level,
                BLOCK=BLOCK,
                num_warps=4,
            )
    return d_table


def add_pulled(
    by_feature: Float[Tensor, "features points"],
    jacobian: Float[Tensor, "3 features points"],
    gradient: Float[Tensor, "3 points"],
) -> None:
    """Add the sum over features of jacobian * by_feature to `gradient`."""
    rows, n = by_feature.shape
    if n and rows:
        with torch.cuda.device_of(gradient):
            pull[(triton.cdiv(n, BLOCK),)](by_feature, jacobian, gradient, n, rows, BLOCK=BLOCK, num_warps=4)


def brick_mask(grid: HashGrid) -> int:
    return (1 << grid.log2_table_size - 3) - 1


@lru_cache(maxsize=16)
def layout(grid: HashGrid, device: torch.device) -> Int[Tensor, "levels 3"]:
    """Resolution, first entry and whether it is dense, of each level; kept, as copying to the GPU would wait."""
    rows = [[grid.resolutions[level], grid.offsets[level], int(grid.is_dense(level))] for level in range(grid.levels)]
    return torch.tensor(rows, dtype=torch.int32, device=device)
