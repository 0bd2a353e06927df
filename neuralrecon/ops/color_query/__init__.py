"""Colour of a hash grid with two hidden ReLU layers, as one operation."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ..backends import Backend, backend_for
from ..hash_encode import HashGrid


@dataclass(frozen=True, slots=True, kw_only=True)
class ColorNetwork:
    """The parameters: the grid's table, two hidden layers of one width, and one that puts out three channels."""

    table: Float[Tensor, "entries f"]
    hidden_weight: Float[Tensor, "hidden inputs"]
    hidden_bias: Float[Tensor, "hidden"]
    middle_weight: Float[Tensor, "hidden hidden"]
    middle_bias: Float[Tensor, "hidden"]
    out_weight: Float[Tensor, "3 hidden"]
    out_bias: Float[Tensor, "3"]


def color_query(
    points: Float[Tensor, "points 3"],
    extras: Float[Tensor, "points extras"],
    network: ColorNetwork,
    grid: HashGrid,
) -> Float[Tensor, "points 3"]:
    """sigmoid(W3 relu(W2 relu(W1 (features(point), extras) + b1) + b2) + b3), each channel in (0, 1).

    Differentiable once with respect to points of the unit cube, extras and the network's parameters.
    """
    if backend_for(network.table) == Backend.cpu:
        from ._cpu import color_query_cpu

        return color_query_cpu(points, extras, network, grid)
    from ._torch import color_query_torch

    return color_query_torch(points, extras, network, grid)
