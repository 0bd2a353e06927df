"""Where a fit starts: the sdf of the visual hull, and the cells around it."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import UInt8
from torch import Tensor

from ..fields import SurfaceModel
from ..render import Occupancy
from ..scene import Scene
from . import losses
from .fit_types import FitConfig

_STEPS, _POINTS = 200, 8192
_BEYOND_HULL_MM = 6.0


def start_from_hull(model: SurfaceModel, scene: Scene, levels: int, generator: torch.Generator) -> None:
    """Teach the model's sdf the hull's, in place, so that rays find a surface from the first step.

    The generator is of the model's device.
    """
    hull = replace(scene.start, sdf=scene.start.sdf.to(generator.device))
    optimizer = torch.optim.Adam(
        [
            {"params": [model.sdf_table], "lr": 5e-3},
            {"params": [*model.sdf_hidden.parameters(), *model.sdf_out.parameters()], "lr": 3e-3},
        ]
    )
    for _ in range(_STEPS):
        points = torch.rand(_POINTS, 3, generator=generator, device=generator.device)
        sdf, gradients = model.surface(points, levels)
        target = hull.look_up(points)
        # what matters is near the hull; far away the sign is enough
        loss = ((sdf - target).abs() / (0.02 + target.abs())).mean() + 0.05 * losses.eikonal_loss(gradients)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def first_occupancy(
    scene: Scene, config: FitConfig, half_width: float, device: torch.device
) -> tuple[Occupancy, UInt8[Tensor, "x y z"]]:
    """The band around the hull, and which cells may ever hold surface: those in or near the hull."""
    n = config.occupancy_resolution
    axis = (torch.arange(n, device=scene.hull.sdf.device) + 0.5) / n
    centers = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)
    sdf, to_hull = (solid.look_up(centers).reshape(n, n, n).to(device) for solid in (scene.start, scene.hull))
    allowed = (to_hull < _BEYOND_HULL_MM * scene.unit_per_mm).to(torch.uint8)
    return Occupancy.from_sdf(sdf, half_width), allowed
