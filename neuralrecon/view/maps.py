"""What an eye sees of a fit: colour, normal and depth of every pixel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from ..render import free_room, render, sample_rays
from ..scene import ColorRays
from ..scene.batch import part_of
from ..train import Fit
from .eyes import Eye

_RAYS_PER_BLOCK = 4096
_SOLID = 0.5  # opacity from which on a pixel shows the surface


@dataclass(frozen=True, slots=True, kw_only=True)
class Maps:
    """A rendered view. `colors` are premultiplied by `opacity`; the others are nan where no surface is seen.

    `depth_m` is along the optical axis, `normals` (unit) and `points` are in the world frame.
    """

    colors: Float[np.ndarray, "v u 3"]
    opacity: Float[np.ndarray, "v u"]
    depth_m: Float[np.ndarray, "v u"]
    normals: Float[np.ndarray, "v u 3"]
    points: Float[np.ndarray, "v u 3"]


@torch.no_grad()
def rendered(fit: Fit, eye: Eye) -> Maps:
    """Volume rendering as by `neuralrecon.render.render_view`, with the samples' mean depth and normal by weight.

    Example:
        >>> maps = rendered(fit, through(eye, window_on(eye, fit.box, 256)))  # doctest: +SKIP
    """
    rays = eye.rays(fit)
    parts = [
        _block(fit, part_of(rays, slice(first, first + _RAYS_PER_BLOCK)))
        for first in range(0, len(rays.inside), _RAYS_PER_BLOCK)
    ]
    colors, opacity, lengths, normals = (torch.cat(values).cpu() for values in zip(*parts, strict=True))
    hidden = opacity < _SOLID
    lengths[hidden], normals[hidden] = torch.nan, torch.nan
    directions, origins = rays.rays.directions.cpu(), rays.rays.origins.cpu()
    points = fit.unit_from_world.inverse().apply((origins + directions * lengths[:, None]).double())
    axis = rays.world_from_cam[:, :, 2].cpu()
    depth = lengths * (directions * axis).sum(dim=1) / fit.unit_from_world.scale
    shape = eye.camera.height, eye.camera.width
    return Maps(
        colors=colors.reshape(*shape, 3).clamp(0, 1).numpy(),
        opacity=opacity.reshape(shape).numpy(),
        depth_m=depth.reshape(shape).numpy(),
        normals=normals.reshape(*shape, 3).numpy(),
        points=points.reshape(*shape, 3).numpy(),
    )


def _block(fit: Fit, rays: ColorRays) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Colours, opacity, distance along the ray in unit lengths, and normal."""
    room = free_room(fit.unit_from_world, fit.floor_m).to(fit.device)
    middles = torch.full_like(rays.rays.origins[:, 0], 0.5)
    samples = sample_rays(rays, room, fit.occupancy, fit.blur, middles)
    sdf, gradients = fit.model.surface(samples.points)
    seen = render(fit.model, samples, sdf, gradients, inv_s=1 / fit.blur)
    of_ray, weights = samples.packed.ray_indices, seen.weights
    n = len(rays.inside)
    total = weights.new_zeros(n).index_add(0, of_ray, weights).clamp_min(1e-6)
    lengths = weights.new_zeros(n).index_add(0, of_ray, weights * samples.packed.t_mids) / total
    towards = torch.nn.functional.normalize(gradients, dim=1) * weights[:, None]
    normals = torch.nn.functional.normalize(weights.new_zeros(n, 3).index_add(0, of_ray, towards), dim=1)
    return seen.colors, seen.opacity, lengths, normals
