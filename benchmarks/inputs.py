"""What the ops are given in a fit's late steps: rays of many pictures, marched through a thin band around a box."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from neuralrecon.geometry import Box, Rays
from neuralrecon.ops import HashGrid, Samples, march
from neuralrecon.ops.march import Band
from neuralrecon.render import Occupancy

GRIDS = {
    "12 x 2^17": HashGrid(levels=12, log2_table_size=17, finest_resolution=512),
    "14 x 2^18": HashGrid(levels=14, log2_table_size=18, finest_resolution=1024),
}
# the default fit of an object 200 mm long in a unit cube of 250 mm, when the blur has ended at 0.3 mm
_BLUR = 0.3 / 250
_STEP, _BAND = 1.5 * _BLUR, 3 * _BLUR
_CELLS, _VIEWS, _DISTANCE = 128, 90, 2.0
_HALF, _ROUND = torch.tensor([0.32, 0.2, 0.38]), 0.03
_SAMPLES_A_RAY = 13.5  # as it turns out here


@dataclass(frozen=True, slots=True, kw_only=True)
class RayInputs:
    """Rays of pixels drawn at random, and the samples that `march` finds on them."""

    rays: Rays
    near: Float[Tensor, "rays"]
    far: Float[Tensor, "rays"]
    jitter: Float[Tensor, "rays"]
    band: Band
    step: float
    samples: Samples

    @staticmethod
    def about(n_samples: int, device: torch.device) -> RayInputs:
        """As many rays as give about so many samples; the same every time."""
        generator = torch.Generator().manual_seed(0)
        rays = _rays(max(1, round(n_samples / _SAMPLES_A_RAY)), generator, device)
        axis = (torch.arange(_CELLS) + 0.5) / _CELLS
        centres = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
        band = Occupancy.from_sdf(sdf_of_box(centres).to(device), _BAND).band
        near, far = Box(low=torch.zeros(3), high=torch.ones(3)).intersect(rays)
        jitter = torch.rand(len(near), generator=generator).to(device)
        samples = march(rays.origins, rays.directions, near, far, band, _STEP, jitter)
        return RayInputs(rays=rays, near=near, far=far, jitter=jitter, band=band, step=_STEP, samples=samples)

    @property
    def points(self) -> Float[Tensor, "samples 3"]:
        of_ray = self.samples.ray_indices
        return self.rays.origins[of_ray] + self.directions * self.samples.t_mids[:, None]

    @property
    def directions(self) -> Float[Tensor, "samples 3"]:
        return self.rays.directions[self.samples.ray_indices]

    @property
    def normals(self) -> Float[Tensor, "samples 3"]:
        """Of the box, by central differences."""
        points, nudge = self.points.cpu().double(), 1e-5 * torch.eye(3, dtype=torch.float64)
        slopes = [sdf_of_box(points + n) - sdf_of_box(points - n) for n in nudge]
        return torch.nn.functional.normalize(torch.stack(slopes, dim=1), dim=1).float().to(self.points.device)


def sdf_of_box(points: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points"]:
    """Signed distance to a box with rounded edges in the middle of the unit cube."""
    over = (points - 0.5).abs() - (_HALF - _ROUND).to(points)
    return over.clamp_min(0).norm(dim=-1) + over.amax(dim=-1).clamp_max(0) - _ROUND


def _rays(n: int, generator: torch.Generator, device: torch.device) -> Rays:
    """From cameras all around, a little from above, through places drawn evenly from the box."""
    turn = 2 * math.pi * torch.arange(_VIEWS) / _VIEWS * 7  # neighbours in the list are no neighbours in the room
    height = torch.linspace(0.1, 0.9, _VIEWS)
    level = (1 - height**2).sqrt()
    eyes = 0.5 + _DISTANCE * torch.stack([level * turn.cos(), level * turn.sin(), height], dim=1)
    origins = eyes[torch.randint(_VIEWS, (n,), generator=generator)]
    targets = 0.5 + (2 * torch.rand(n, 3, generator=generator) - 1) * _HALF
    directions = torch.nn.functional.normalize(targets - origins, dim=1)
    return Rays(origins=origins.to(device), directions=directions.to(device))
