"""The definition of `sdf_query`: gradients by autograd."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..hash_encode import HashGrid, hash_features
from ..hash_encode._torch import hash_encode_torch
from . import SdfNetwork

_BLOCK = 1 << 16


def sdf_query_torch(
    points: Float[Tensor, "points 3"], network: SdfNetwork, grid: HashGrid, levels: int
) -> tuple[Float[Tensor, "points"], Float[Tensor, "points 3"]]:
    features, jacobian = hash_encode_torch(points, network.table, grid, levels)
    inputs = torch.cat([points - 0.5, features], dim=1)
    before = inputs @ network.hidden_weight.t() + network.hidden_bias
    sdf = before.relu() @ network.out_weight + network.out_bias
    by_input = ((before > 0) * network.out_weight) @ network.hidden_weight
    gradient = by_input[:, :3] + (jacobian * by_input[:, 3:, None]).sum(dim=1)
    return sdf, gradient


def sdf_values_torch(
    points: Float[Tensor, "points 3"], network: SdfNetwork, grid: HashGrid, levels: int
) -> Float[Tensor, "points"]:
    values = points.new_empty(len(points))
    for block, out in zip(points.split(_BLOCK), values.split(_BLOCK), strict=True):
        inputs = torch.cat([block - 0.5, hash_features(block, network.table, grid, levels)], dim=1)
        hidden = (inputs @ network.hidden_weight.t() + network.hidden_bias).relu()
        out.copy_(hidden @ network.out_weight + network.out_bias)
    return values
