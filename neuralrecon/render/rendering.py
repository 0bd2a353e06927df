"""Volume rendering of a signed distance field along rays."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..fields import SurfaceModel
from ..geometry import Box, Similarity
from ..ops import Samples, composite, march, neus_alpha
from ..scene import ColorRays
from .occupancy import Occupancy
from .sections import section_ends

_VISIBLE = 2e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class RaySamples:
    """Where the model is to be asked along a batch of rays: positions and directions in the unit frame."""

    batch: ColorRays
    packed: Samples
    points: Float[Tensor, "samples 3"]
    directions: Float[Tensor, "samples 3"]
    step: float

    def middles(self, weights: Float[Tensor, "samples"]) -> Float[Tensor, "rays 3"]:
        """Where each ray meets the surface: its samples' mean by weight; not differentiated."""
        weights, of_ray = weights.detach(), self.packed.ray_indices
        n = len(self.batch.inside)
        total = weights.new_zeros(n).index_add(0, of_ray, weights)
        t = weights.new_zeros(n).index_add(0, of_ray, weights * self.packed.t_mids) / total.clamp_min(1e-6)
        return self.batch.rays.at(t)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """What each ray sees.

    `colors` are premultiplied by opacity and as the ray's sensor records them; `opacity` is in [0, 1].
    """

    colors: Float[Tensor, "rays 3"]
    opacity: Float[Tensor, "rays"]
    weights: Float[Tensor, "samples"]


def free_room(unit_from_world: Similarity, floor_m: float | None) -> Box:
    """The part of the unit cube that cameras can look into: a ray ends at the table, below which nothing is known."""
    low = unit_from_world.translation.new_zeros(3, dtype=torch.float32)
    if floor_m is not None:
        low[2] = unit_from_world.scale * floor_m + float(unit_from_world.translation[2])
    return Box(low=low.clamp_min(0.0), high=torch.ones_like(low))


def sample_rays(
    batch: ColorRays, room: Box, occupancy: Occupancy, step: float, jitter: Float[Tensor, "rays"]
) -> RaySamples:
    """Samples `step` unit lengths apart, within `room` (see `free_room`), in the band where the surface may be."""
    rays = batch.rays
    near, far = room.intersect(rays)
    packed = march(rays.origins, rays.directions, near, far, occupancy.band, step, jitter)
    directions = rays.directions[packed.ray_indices]
    points = rays.origins[packed.ray_indices] + directions * packed.t_mids[:, None]
    return RaySamples(batch=batch, packed=packed, points=points, directions=directions, step=step)


def render(
    model: SurfaceModel,
    samples: RaySamples,
    sdf: Float[Tensor, "samples"],
    gradients: Float[Tensor, "samples 3"],
    *,
    inv_s: float,
    displacement: Float[Tensor, "samples 3"] | None = None,
) -> Rendering:
    """Composite what the model said at the samples (`model.surface(samples.points)`).

    Colour is only computed for samples that weigh more than two thousandths: the rest cannot be seen.

    Args:
        inv_s: steepness of the opacity, 1/unit length; samples should not be further apart than 1/inv_s.
        displacement: see `SensorModel.displacement`.
    """
    batch, of_ray = samples.batch, samples.packed.ray_indices
    slope = (gradients * samples.directions).sum(dim=1)
    alpha = neus_alpha(*section_ends(samples.packed, sdf, slope, samples.step), inv_s)
    weights, left = composite(alpha, samples.packed.ray_starts)
    seen = (weights.detach() > _VISIBLE).nonzero()[:, 0]
    of_ray = of_ray[seen]
    colors = model.color(
        samples.points[seen],
        torch.nn.functional.normalize(gradients.index_select(0, seen), dim=1),
        samples.directions[seen],
        batch.rig_from_world[of_ray],
        None if displacement is None else displacement.index_select(0, seen),
    )
    weighted = colors * weights.index_select(0, seen)[:, None]
    ray_colors = colors.new_zeros(len(left), 3).index_add(0, of_ray, weighted)
    opacity = 1 - left
    return Rendering(
        colors=model.sensors.recorded(ray_colors, opacity, batch.sensors), opacity=opacity, weights=weights
    )


@torch.no_grad()
def render_view(
    model: SurfaceModel, batch: ColorRays, room: Box, occupancy: Occupancy, *, inv_s: float, step: float
) -> Rendering:
    """Rays of a whole picture, without gradients; sampled at the intervals' middles."""
    middles = torch.full_like(batch.rays.origins[:, 0], 0.5)
    samples = sample_rays(batch, room, occupancy, step, middles)
    sdf, gradients = model.surface(samples.points)
    return render(model, samples, sdf, gradients, inv_s=inv_s)
