"""The definition of `march`: every lattice point of every ray is looked up."""

from __future__ import annotations

import torch
from torch import Tensor

from . import BAND, INSIDE, Samples


def march_torch(
    origins: Tensor, directions: Tensor, near: Tensor, far: Tensor, cells: Tensor, step: float, jitter: Tensor
) -> Samples:
    device = origins.device
    width = int(((far - near) / step).max().clamp_min(0).ceil()) + 1 if len(near) else 0
    t = near[:, None] + (torch.arange(width, device=device) + jitter[:, None]) * step
    points = origins[:, None] + directions[:, None] * t[..., None]
    size = torch.tensor(cells.shape, device=device)
    index = (points * size).floor().long()
    valid = (t < far[:, None]) & ((index >= 0) & (index < size)).all(dim=-1)
    index = index.clamp(torch.zeros_like(size), size - 1)
    state = torch.where(valid, cells[index[..., 0], index[..., 1], index[..., 2]].long(), 0)
    entered = (state == BAND).cumsum(dim=1) > 0
    blocked = ((state == INSIDE) & entered).cumsum(dim=1) > 0
    keep = (state == BAND) & ~blocked
    ray_indices = keep.nonzero()[:, 0]
    starts = torch.cat([torch.zeros(1, dtype=torch.long, device=device), keep.sum(dim=1).cumsum(dim=0)])
    return Samples(t_mids=t[keep], ray_indices=ray_indices, ray_starts=starts)
