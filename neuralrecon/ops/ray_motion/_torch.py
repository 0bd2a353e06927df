"""The definition of `ray_motion`."""

from __future__ import annotations

from torch import Tensor


def ray_motion_torch(shift: Tensor, spread: Tensor, distances: Tensor, of_ray: Tensor) -> Tensor:
    # index_select, not [of_ray]: the latter's backward adds in an order that is not always the same
    shift, spread = shift - shift.detach(), spread - spread.detach()
    return shift.index_select(0, of_ray) + distances[:, None] * spread.index_select(0, of_ray)
