"""Signed distance and gradient of a hash grid with one hidden ReLU layer, as one operation.

With inputs y = (x - 0.5, features(x)), hidden h = W y + b, mask m = [h > 0] and output weights w:

    sdf = w . (m * h) + c          gradient = (dy/dx)^T g   with   g = W^T (m * w)

Both are piecewise linear in every parameter, which makes the backward pass short. With Q = d_sdf y + (dy/dx) d_gradient
(one column a sample) and A = m Q^T, a = m d_sdf (sums over samples):

    dW = w * A      db = w * a      dw = rowsum(W * A) + b * a      d features = g d_sdf      d jacobian = g d_gradient

so one product over the samples serves all the network's parameters, and the Jacobian's gradient, an outer product, need
never be stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..backends import Backend, backend_for
from ..hash_encode import HashGrid


@dataclass(frozen=True, slots=True, kw_only=True)
class SdfNetwork:
    """The parameters: the grid's table, one hidden layer, one output."""

    table: Float[Tensor, "entries f"]
    hidden_weight: Float[Tensor, "hidden inputs"]
    hidden_bias: Float[Tensor, "hidden"]
    out_weight: Float[Tensor, "hidden"]
    out_bias: Float[Tensor, ""]


def sdf_query(
    points: Float[Tensor, "points 3"], network: SdfNetwork, grid: HashGrid, active_levels: int | None = None
) -> tuple[Float[Tensor, "points"], Float[Tensor, "points 3"]]:
    """Signed distance and its derivative by position, at points of the unit cube.

    Both are differentiable once with respect to the network's parameters; `points` are taken as constants.
    """
    levels = grid.levels if active_levels is None else min(active_levels, grid.levels)
    backend = backend_for(network.table)
    if backend == Backend.cpu:
        from ._cpu import sdf_query_cpu

        return sdf_query_cpu(points.detach(), network, grid, levels)
    if backend == Backend.triton:
        from ._triton import sdf_query_triton

        return sdf_query_triton(points.detach(), network, grid, levels)
    from ._torch import sdf_query_torch

    return sdf_query_torch(points.detach(), network, grid, levels)


@torch.no_grad()
def sdf_values(
    points: Float[Tensor, "points 3"], network: SdfNetwork, grid: HashGrid, active_levels: int | None = None
) -> Float[Tensor, "points"]:
    """The signed distance of `sdf_query` alone, without derivatives, in blocks of bounded memory."""
    levels = grid.levels if active_levels is None else min(active_levels, grid.levels)
    if backend_for(network.table) == Backend.cpu:
        from ._cpu import sdf_values_cpu

        return sdf_values_cpu(points, network, grid, levels)
    from ._torch import sdf_values_torch

    return sdf_values_torch(points, network, grid, levels)
