"""A textured mesh as a photograph of the capture would show it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ..evaluate.views import ViewReport, compare_views
from ..scene import Photograph
from ..train import Fit
from .caster import Caster
from .eyes import view_rays
from .light import Light
from .look_up import looked_up
from .stage import TexturedMesh

_RAYS_A_SIDE = 2  # of each pixel, which is the mean of its area
_PIXELS_AT_ONCE = 1 << 15


def evaluate_texture(
    textured: TexturedMesh, fit: Fit, photographs: Sequence[Photograph], *, lit: bool = True
) -> ViewReport:
    """Compare photographs with renderings of the mesh, as `evaluate_views` does with those of the fit.

    Args:
        lit: whether the room's light falls on the mesh, as it stood in the room; without it, it shows its bare picture.
    """
    fit = fit.to(torch.device("cpu"))
    return compare_views(photographs, partial(render_textured, textured, fit, caster_of(textured, fit), lit))


@torch.no_grad()
def render_textured(
    textured: TexturedMesh, fit: Fit, caster: Caster, lit: bool, photograph: Photograph
) -> tuple[Float[np.ndarray, "v u 3"], Float[np.ndarray, "v u"]]:
    """Colours over black in the photograph's crop, as its sensor records them, and the share of each pixel covered."""
    crop, n = photograph.crop, _RAYS_A_SIDE
    light = textured.light if lit else Light.constant()
    offsets = (torch.arange(n) + 0.5) / n
    within = torch.stack(torch.meshgrid(offsets, offsets, indexing="xy"), dim=-1).reshape(1, -1, 2)
    parts = []
    for pixels in torch.arange(crop.n_pixels).split(_PIXELS_AT_ONCE):
        corner = torch.stack([pixels % crop.width + crop.u0, pixels // crop.width + crop.v0], dim=1)
        rays = view_rays(photograph, fit, (corner[:, None] + within).reshape(-1, 2))
        parts.append(_seen(textured, fit, caster, light, photograph, rays).reshape(len(pixels), n * n, 4).mean(dim=1))
    image = torch.cat(parts).reshape(crop.height, crop.width, 4).double().numpy()
    return image[..., :3].clip(0, 1), image[..., 3]


def caster_of(textured: TexturedMesh, fit: Fit) -> Caster:
    """The textured mesh in the fit's unit coordinates, for rays."""
    vertices = torch.from_numpy(np.array(textured.mesh.vertices, np.float64))
    return Caster.of(fit.unit_from_world.apply(vertices).numpy(), np.asarray(textured.mesh.faces))


def _seen(
    textured: TexturedMesh,
    fit: Fit,
    caster: Caster,
    light: Light,
    photograph: Photograph,
    rays: tuple[Tensor, Tensor],
) -> Float[Tensor, "rays 4"]:
    """Colour as recorded, and 1 where the ray meets the mesh; else zeros."""
    hits = caster.cast(*rays)
    met = (hits.faces >= 0).nonzero()[:, 0]
    corners = torch.from_numpy(np.array(textured.mesh.faces, np.int64))[hits.faces[met]]
    weights = hits.weights[met][:, :, None]
    uv = (torch.from_numpy(textured.uv.astype(np.float32))[corners] * weights).sum(dim=1)
    normals = torch.from_numpy(np.array(textured.mesh.vertex_normals, np.float32))[corners]
    in_room = normalize((normals * weights).sum(dim=1), dim=1) @ photograph.rig_from_world.float().T
    colors = looked_up(textured.image, uv) * light.factor(in_room)
    sensors = torch.full((len(met),), photograph.sensor)
    recorded = fit.model.sensors.recorded(colors, torch.ones(len(met)), sensors)
    found = torch.zeros(len(hits.faces), 4)
    found[met] = torch.cat([recorded, torch.ones(len(met), 1)], dim=1)
    return found
