"""Where depth readings are put to the model, and what they then say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..fields import SensorModel
from ..render import Occupancy
from ..scene import DepthRays
from . import losses
from .fit_types import FitConfig
from .schedule import Moment

_CLEARANCE_MM = 1.0
_STEPS_ON_WAY = 28
_COVER_MM = 2.0
_ROOM_FOR_ERRORS_MM = 50.0  # a wrong reading may lie anywhere in so much


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthProbes:
    """Points near readings, in the free room before them, and beside the first ones: in this order in `points`.

    `before` is how far before its reading each near point lies, in unit lengths; `covered` how deep the way to the
    reading runs in the solid as it was last known: a surface is only read through nothing.
    """

    readings: DepthRays
    points: Float[Tensor, "points 3"]
    before: Float[Tensor, "near"]
    covered: Float[Tensor, "near"]
    n_free: int

    @staticmethod
    def place(
        readings: DepthRays,
        occupancy: Occupancy,
        truncation: float,
        beside: float,
        near_room: float,
        generator: torch.Generator,
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
        steps = torch.linspace(0.75 * truncation, near_room, _STEPS_ON_WAY, device=device)
        way = rays.origins[:, None] + (readings.distances[:, None] - steps)[..., None] * rays.directions[:, None]
        covered = -occupancy.look_up(way.reshape(-1, 3)).reshape(n, -1).amin(dim=1).clamp_max(0)
        return DepthProbes(readings=readings, points=points, before=before, covered=covered, n_free=half)

    def terms(
        self,
        sensors: SensorModel,
        sdf: Float[Tensor, "points"],
        gradients: Float[Tensor, "points 3"],
        config: FitConfig,
        now: Moment,
    ) -> dict[str, Tensor]:
        """Weighted loss terms, from what the model says at `points`; the sensors' spread follows."""
        n, m = len(self.before), len(self.before) + self.n_free
        normals = torch.nn.functional.normalize(gradients[:n].detach(), dim=1)
        facing = (normals * self.readings.rays.directions).sum(dim=1).abs().clamp_min(0.2)
        in_cube = ((self.points >= 0) & (self.points <= 1)).all(dim=1)
        sdf_mm, before_mm = sdf / now.unit_per_mm, self.before / now.unit_per_mm
        inlier = self.readings.inlier * in_cube[:n]
        exact = torch.ones_like(inlier)
        if config.robust_depth:
            off_mm = sdf_mm[:n].detach() - before_mm * facing
            of = self.readings.sensors
            inlier = inlier * torch.exp(-(self.covered / now.unit_per_mm / _COVER_MM).square())
            inlier = posterior(inlier, off_mm, sensors.spread_mm[of].clamp_min(now.least_spread_mm))
            sensors.learn_spread(off_mm, inlier, of)
            exact = (config.depth_exact_mm / sensors.spread_mm[of]).square().clamp_max(1.0)
        sure = exact * torch.relu(2 * inlier - 1)  # a wrong reading would tell more free room than a right one
        terms = {}
        if config.w_depth:
            terms["depth"] = config.w_depth * losses.truncated_sdf_loss(sdf_mm[:n], before_mm, facing, inlier, exact)
        if config.w_free:
            free = losses.free_space_loss(sdf_mm[n:m], _CLEARANCE_MM, sure[: m - n] * in_cube[n:m])
            terms["free"] = config.w_free * free
        if config.w_bending:
            terms["bending"] = config.w_bending * losses.bending_loss(gradients[: self.n_free], gradients[m:])
        return terms


def posterior(
    prior: Float[Tensor, "readings"], off_mm: Float[Tensor, "readings"], spread_mm: Float[Tensor, "readings"]
) -> Float[Tensor, "readings"]:
    """Probability that a reading is right, once the surface is known to lie `off_mm` from it.

    Right ones are normal about the surface, wrong ones even over `_ROOM_FOR_ERRORS_MM` (mixture of Hampel's kind).
    """
    right = prior * torch.exp(-0.5 * (off_mm / spread_mm).square()) / (spread_mm * math.sqrt(2 * math.pi))
    return right / (right + (1 - prior) / _ROOM_FOR_ERRORS_MM + 1e-12)
