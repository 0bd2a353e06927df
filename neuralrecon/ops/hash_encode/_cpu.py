"""`hash_encode` in Numba with explicit vectors: sixteen points at a time, a row of memory for each feature.

What limits it is the cache: looking up 14 levels of 2^18 entries takes six times as long as 14 of 2^10. So the fused
queries take points in Morton order (Z-order curve), whose runs lie close together and share lines of the tables.
Backward: each thread owns whole levels, so no two threads write one entry and the sum's order never changes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..buffers import take_zeros
from ..simd import LANES
from ..threads import use_threads
from . import HashGrid
from ._cpu_kernels import (
    encode_columns,
    scatter_columns,
    sort_by_morton,
)

_SORT_BITS = 5  # of each coordinate
_WORTH_SORTING = 4096


def hash_encode_cpu(
    points: Float[Tensor, "points 3"], table: Float[Tensor, "entries f"], grid: HashGrid, levels: int
) -> tuple[Float[Tensor, "points features"], Float[Tensor, "points features 3"]]:
    return _HashEncode.apply(points, table, grid, levels)  # pyright: ignore[reportReturnType]


def hash_features_cpu(
    points: Float[Tensor, "points 3"], table: Float[Tensor, "entries f"], grid: HashGrid, levels: int
) -> Float[Tensor, "points features"]:
    features, jacobian = hash_encode_cpu(points.detach(), table, grid, levels)
    if not points.requires_grad:
        return features
    # zero in value; its derivative is that of the points, where they are not clamped to the cube
    moved = (points - points.detach()).masked_fill((points < 0) | (points > 1), 0.0)
    return features + (jacobian.detach() * moved[:, None]).sum(dim=2)


class _HashEncode(torch.autograd.Function):
    """Rows of features and of slopes, in the points' own order; the contract's tensors are views of them."""

    @staticmethod
    def forward(ctx, points: Tensor, table: Tensor, grid: HashGrid, levels: int) -> tuple[Tensor, Tensor]:
        n = points.shape[0]
        columns = torch.zeros(3, -(-n // LANES) * LANES)
        columns[:, :n] = points.t()
        features = torch.zeros(grid.n_features, columns.shape[1])
        jacobian = torch.zeros(3, grid.n_features, columns.shape[1])
        encode_columns(
            columns.numpy(),
            table.contiguous().numpy(),
            *layout(grid),
            levels,
            use_threads(),
            features.numpy(),
            jacobian.view(3 * grid.n_features, -1).numpy(),
        )
        ctx.save_for_backward(columns)
        ctx.set_materialize_grads(False)  # a Jacobian that nobody differentiates costs nothing
        ctx.grid, ctx.levels, ctx.table_shape = grid, levels, table.shape
        return features[:, :n].t(), jacobian[:, :, :n].permute(2, 1, 0)

    @staticmethod
    def backward(ctx, d_features: Tensor | None, d_jacobian: Tensor | None):
        (columns,) = ctx.saved_tensors
        rows = ctx.grid.n_features
        pushed = torch.zeros(4, rows, columns.shape[1])  # by value, and by the slope along each axis
        if d_features is not None:
            pushed[0, :, : len(d_features)] = d_features.t()
        if d_jacobian is not None:
            pushed[1:, :, : len(d_jacobian)] = d_jacobian.permute(2, 1, 0)
        d_table = take_zeros(ctx.table_shape)
        scatter_columns(
            columns.numpy(),
            pushed.view(4 * rows, -1).numpy(),
            *layout(ctx.grid),
            ctx.levels,
            use_threads(),
            d_table.numpy(),
        )
        return None, d_table, None, None


def within_cube(d_points: Tensor, points: Tensor) -> Tensor:
    """Zero along the axes on which a point was clamped to the cube, as clamping's derivative is."""
    return d_points.masked_fill_((points < 0) | (points > 1), 0.0)


@lru_cache
def layout(grid: HashGrid) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Resolutions, first entries, which levels are dense, and the mask of an entry within its level.

    Raises:
        NotImplementedError: not 2 features a level.
    """
    if grid.features_per_level != 2:
        raise NotImplementedError("the compiled encoding takes 2 features per level; others run with use_backend")
    dense = np.array([grid.is_dense(level) for level in range(grid.levels)])
    return np.array(grid.resolutions), np.array(grid.offsets), dense, (1 << grid.log2_table_size) - 1


def morton_order(points: Float[Tensor, "points 3"]) -> np.ndarray:
    """Where each point of a Z-order curve's run comes from; few points stay as they are."""
    order = np.empty(len(points), np.int32)
    sort_by_morton(points.numpy(), _SORT_BITS if len(points) >= _WORTH_SORTING else 0, order)
    return order
