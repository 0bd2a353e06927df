"""Where depth readings are put to the model, and what they then say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..scene import DepthRays
from . import losses
from .fit_types import FitConfig
from .schedule import Moment

_CLEARANCE_MM = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthProbes:
    """Points near readings, in the free room before them, and beside the first ones: in this order in `points`.

    `before` is how far before its reading each near point lies, in unit lengths.
    """

    readings: DepthRays
    points: Float[Tensor, "points 3"]
    before: Float[Tensor, "near"]
    n_free: int

    @staticmethod
    def place(
        readings: DepthRays, truncation: float, beside: float, near_room: float, generator: torch.Generator
    ) -> DepthProbes:
        """One near point a reading, a free and a neighbouring point for every other; lengths in units.

        Args:
            generator: of the readings' device.
            truncation: near points lie up to this far before or behind the reading.
            beside: standard deviation of the step from a near point to its neighbour.
            near_room: free points lie at most this far before the near ones: further off the hull rules.
        """
        rays, n, device = readings.rays, len(readings.distances), generator.device
        before = (torch.rand(n, generator=generator, device=device) * 2 - 1) * truncation
        near = rays.at(readings.distances - before)
        room = torch.rand(n, generator=generator, device=device) * near_room + truncation
        free = rays.at(readings.distances - room)
        neighbours = near + beside * torch.randn(n, 3, generator=generator, device=device)
        half = n // 2
        points = torch.cat([near, free[:half], neighbours[:half]])
        return DepthProbes(readings=readings, points=points, before=before, n_free=half)

    def terms(
        self, sdf: Float[Tensor, "points"], gradients: Float[Tensor, "points 3"], config: FitConfig, now: Moment
    ) -> dict[str, Tensor]:
        """Weighted loss terms, from what the model says at `points`."""
        n, m = len(self.before), len(self.before) + self.n_free
        normals = torch.nn.functional.normalize(gradients[:n].detach(), dim=1)
        facing = (normals * self.readings.rays.directions).sum(dim=1).abs().clamp_min(0.2)
        in_cube = ((self.points >= 0) & (self.points <= 1)).all(dim=1)
        inlier = self.readings.inlier
        sdf_mm, before_mm = sdf / now.unit_per_mm, self.before / now.unit_per_mm
        terms = {}
        if config.w_depth:
            near = losses.truncated_sdf_loss(sdf_mm[:n], before_mm, facing, inlier * in_cube[:n])
            terms["depth"] = config.w_depth * near
        if config.w_free:
            free = losses.free_space_loss(sdf_mm[n:m], _CLEARANCE_MM, inlier[: m - n] * in_cube[n:m])
            terms["free"] = config.w_free * free
        if config.w_bending:
            terms["bending"] = config.w_bending * losses.bending_loss(gradients[: self.n_free], gradients[m:])
        return terms
