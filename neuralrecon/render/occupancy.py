"""Which cells of the unit cube may hold the surface, so that rays are sampled nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ..ops.march import BAND, INSIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """Cells by state: outside, in the band |sdf| < half width, inside. `sdf` holds the last known value at centres.

    All in unit lengths.
    """

    cells: UInt8[Tensor, "x y z"]
    sdf: Float[Tensor, "x y z"]
    half_width: float

    @staticmethod
    def from_sdf(sdf: Float[Tensor, "x y z"], half_width: float) -> Occupancy:
        """States from signed distances at the cells' centres; half a cell's diagonal is added to the half width."""
        reach = half_width + 0.5 * 3**0.5 / sdf.shape[0]
        cells = torch.zeros_like(sdf, dtype=torch.uint8)
        cells[sdf < reach] = BAND
        cells[sdf < -reach] = INSIDE
        return Occupancy(cells=cells, sdf=sdf, half_width=half_width)

    def near_surface(self, points: Float[Tensor, "points 3"]) -> Bool[Tensor, "points"]:
        """Whether the sdf, interpolated between cells, lies in the band: finer than the cells' own state.

        A third of a cell is added for what interpolation loses at edges.
        """
        return self.look_up(points).abs() < self.half_width + 0.33 / self.sdf.shape[0]

    def look_up(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points"]:
        """The last known sdf, interpolated between the cells' centres."""
        at = (points.clamp(0, 1) * 2 - 1).flip(-1)[None, None, None]
        grid = self.sdf[None, None]
        return torch.nn.functional.grid_sample(grid, at, align_corners=False, padding_mode="border")[0, 0, 0, 0]

    def refreshed(
        self, sdf_at: Callable[[Tensor], Tensor], half_width: float, allowed: UInt8[Tensor, "x y z"], whole: bool
    ) -> Occupancy:
        """Ask the model again: in all allowed cells, or (`whole` False) only in those near the present band.

        Between two refreshes the surface must not move further than the cells around the band reach, so refresh often.
        """
        size = self.sdf.shape[0]
        near = torch.ones_like(self.cells, dtype=torch.bool)
        if not whole:
            near = self.sdf.abs() < half_width + 1.5 * 3**0.5 / size
        index = (near & (allowed > 0)).nonzero()
        sdf = self.sdf.clone()
        sdf[tuple(index.t())] = sdf_at((index + 0.5) / size)
        return Occupancy.from_sdf(sdf, half_width)
