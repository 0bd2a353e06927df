"""The definition of `hash_encode`: any device, any float type, gradients by autograd."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from . import HashGrid

PRIME_Y, PRIME_Z = 2654435761, 805459861


def hash_encode_torch(
    points: Float[Tensor, "points 3"], table: Float[Tensor, "entries f"], grid: HashGrid, levels: int
) -> tuple[Float[Tensor, "points features"], Float[Tensor, "points features 3"]]:
    n, f = points.shape[0], grid.features_per_level
    features = [points.new_zeros(n, f)] * grid.levels
    jacobians = [points.new_zeros(n, f, 3)] * grid.levels
    offsets = grid.offsets
    for level, resolution in enumerate(grid.resolutions[:levels]):
        scaled = points.clamp(0.0, 1.0) * resolution
        cell = scaled.floor().clamp_max(resolution - 1)
        fraction = scaled - cell
        feature, jacobian = points.new_zeros(n, f), points.new_zeros(n, f, 3)
        for corner in range(8):
            step = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2 & 1], device=points.device)
            entry = offsets[level] + _entry(cell.long() + step, grid, level)
            value = table[entry]
            weight = torch.where(step == 1, fraction, 1 - fraction)
            slope = (2 * step - 1).to(points) * resolution
            by_axis = torch.stack(
                [
                    slope[0] * weight[:, 1] * weight[:, 2],
                    slope[1] * weight[:, 0] * weight[:, 2],
                    slope[2] * weight[:, 0] * weight[:, 1],
                ],
                dim=-1,
            )
            feature = feature + weight.prod(dim=-1, keepdim=True) * value
            jacobian = jacobian + value[:, :, None] * by_axis[:, None, :]
        features[level], jacobians[level] = feature, jacobian
    return torch.cat(features, dim=1), torch.cat(jacobians, dim=1)


def _entry(vertex: Tensor, grid: HashGrid, level: int) -> Tensor:
    x, y, z = (vertex >> 1).unbind(-1)
    within = (vertex & 1)[..., 0] + 2 * (vertex & 1)[..., 1] + 4 * (vertex & 1)[..., 2]
    if grid.is_dense(level):
        side = grid.resolutions[level] // 2 + 1
        return 8 * (x + side * (y + side * z)) + within
    brick = (x ^ (y * PRIME_Y) ^ (z * PRIME_Z)) & ((1 << grid.log2_table_size - 3) - 1)
    return 8 * brick + within
