"""The definition of `color_query`: gradients by autograd, the encoding by whichever backend takes it."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear

from ..hash_encode import HashGrid, hash_features
from . import ColorNetwork


def color_query_torch(
    points: Float[Tensor, "points 3"], extras: Float[Tensor, "points extras"], network: ColorNetwork, grid: HashGrid
) -> Float[Tensor, "points 3"]:
    inputs = torch.cat([hash_features(points, network.table, grid), extras], dim=1)
    hidden = linear(inputs, network.hidden_weight, network.hidden_bias).relu()
    middle = linear(hidden, network.middle_weight, network.middle_bias).relu()
    return torch.sigmoid(linear(middle, network.out_weight, network.out_bias))
