"""Which cells of the unit cube may hold the surface, so that rays are sampled nowhere else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ..ops.march import BAND, INSIDE, Band


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

    @property
    def band(self) -> Band:
        """Where rays are sampled: finer than the cells' own state.

        A third of a cell is added to the half width for what interpolation loses at edges.
        """
        return Band(cells=self.cells, sdf=self.sdf, reach=self.half_width + 0.33 / self.sdf.shape[0])

    def look_up(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points"]:
        """The last known sdf, interpolated between the cells' centres."""
        return self.band.look_up(points)

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
