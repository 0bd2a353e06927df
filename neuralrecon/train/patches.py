"""Stereo in the fit: what the surface's tangent plane shows in one photograph, its neighbours must show too.

After Geo-NeuS (Fu et al. 2022) and PGSR (Chen et al. 2024): the place where a ray meets the surface and the normal
there carry a patch of pixels into neighbouring photographs, and normalised cross-correlation tells how alike they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..fields import SensorModel
from ..geometry import Rays
from ..geometry.camera import distort, undistort
from ..ops.march import Samples
from ..ops.patch_ncc import Photographs, patch_ncc
from ..render import Occupancy
from ..scene import ColorRays
from ..scene.neighbours import neighbours
from ..scene.photographs import Pixels

_HALF = 3  # 7 x 7 samples
_WIDEST = 0.05  # of the cube's edge: a patch of every other pixel may be as wide; else it is of neighbouring pixels
_LEAST_CONTRAST = 0.02  # standard deviation of a patch's grey values, white = 1: below it, noise
_LEAST_FACING = 0.3  # cosine between normal and sight: at 70 degrees a pixel is a third of its width
_UNLIKE = 0.6  # at this correlation and below a patch says nothing: another thing is seen there
_TRUSTED_SHARE = (0.3, 0.6)  # of patches that agree: below the first the term is off, above the second it is on
_SIGHT_STEPS = 24
_LEAST_SLOPE = 0.2  # of the photograph's own rays: with less, patches reach far and numbers overflow


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossings:
    """Where rays first go into the solid: distance along the ray and normal, differentiable by sdf and gradients."""

    ray_indices: Int[Tensor, "crossings"]
    distances: Float[Tensor, "crossings"]
    normals: Float[Tensor, "crossings 3"]

    @staticmethod
    def find(samples: Samples, n_rays: int, sdf: Float[Tensor, "samples"], gradients: Tensor, step: float) -> Crossings:
        """Of the first `n_rays` rays, those whose sdf falls through zero between two samples, linear between them.

        Args:
            step: how far apart samples are; across gaps in the band nothing is interpolated.
        """
        n = int(samples.ray_starts[n_rays])
        ray, t, f = samples.ray_indices[:n], samples.t_mids[:n], sdf[:n].detach()
        falls = (f[:-1] > 0) & (f[1:] <= 0) & (ray[:-1] == ray[1:]) & (t[1:] - t[:-1] < 1.5 * step)
        at = falls.nonzero()[:, 0]
        first = torch.ones_like(at, dtype=torch.bool)
        first[1:] = ray[at[1:]] != ray[at[:-1]]
        at = at[first]
        before, behind = sdf.index_select(0, at), sdf.index_select(0, at + 1)
        part = before / (before - behind)
        normals = torch.lerp(gradients.index_select(0, at), gradients.index_select(0, at + 1), part.detach()[:, None])
        return Crossings(
            ray_indices=ray[at],
            distances=torch.lerp(t[at], t[at + 1], part),
            normals=torch.nn.functional.normalize(normals, dim=1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Views:
    """The photographs with their sensors and stops, and who is whose neighbour."""

    photographs: Photographs
    sensors: Int[Tensor, "images"]
    stops: Int[Tensor, "images"]
    neighbours: Int[Tensor, "images neighbours"]
    spacings: Int[Tensor, "images"]  # between samples of a patch, in pixels

    @staticmethod
    def of(pixels: Pixels, middle: Float[Tensor, "3"], device: torch.device, n_neighbours: int = 4) -> Views:
        """On the CPU nothing is copied, files mapped into memory stay so; a GPU gets all crops, 3 bytes a pixel.

        Args:
            middle: of the object, in unit coordinates.
        """
        width = pixels.corners[:, 2:]
        heights = pixels.starts.diff()[:, None] // width
        photographs = Photographs(
            rgb=pixels.rgb,
            bits=pixels.bits,
            firsts=pixels.firsts,
            crops=torch.cat([pixels.corners, heights], dim=1),
            intrinsics=pixels.intrinsics,
            rotations=pixels.rotations,
            origins=pixels.origins,
        )
        partners = neighbours(pixels.origins, middle, n_neighbours)
        pixel_width = (pixels.origins - middle).norm(dim=1) / pixels.intrinsics[:, 0]  # on the object, cube's edge = 1
        return Views(
            photographs=photographs.to(device),
            sensors=pixels.sensors.to(device),
            stops=pixels.stops.to(device),
            neighbours=partners.to(device),
            spacings=torch.where(4 * _HALF * pixel_width > _WIDEST, 1, 2).to(device),
        )

    def motion(
        self, points: Float[Tensor, "points 3"], images: Int[Tensor, "points"], sensors: SensorModel, *, refines: bool
    ) -> Float[Tensor, "points 3"]:
        """How points that photographs see move with the sensors' corrections: given camera to corrected one."""
        p = self.photographs
        along = points - p.origins[images]
        distances = along.norm(dim=1)
        rays = ColorRays(
            rays=Rays(origins=p.origins[images], directions=along / distances[:, None]),
            colors=along,
            inside=distances > 0,  # neither colours nor silhouettes nor lights move
            rig_from_world=p.rotations[images],
            world_from_cam=p.rotations[images],
            sensors=self.sensors[images],
            stops=self.stops[images],
            images=images,
        )
        moved = sensors.corrected_color(rays).rays.at(distances) - points
        return moved + sensors.displacement(rays, distances) if refines else moved

    def own_patches(
        self, rays: Rays, images: Int[Tensor, "patches"]
    ) -> tuple[Float[Tensor, "patches samples 3"], Float[Tensor, "patches samples"], Bool[Tensor, "patches"]]:
        """Around the pixels that rays as given go through: directions (z = 1), grey values of mean 0 and norm 1.

        And which of them lie in the silhouette and have texture.
        """
        p = self.photographs
        k, crops = p.intrinsics[images][:, None], p.crops[images][:, None]
        in_cam = (rays.directions[:, None] @ p.rotations[images])[:, 0]
        ideal = in_cam[:, None, :2] / in_cam[:, None, 2:]
        corner = (distort(ideal, k[..., 4:]) * k[..., :2] + k[..., 2:4]).floor()
        corner = corner + _offsets(ideal.device) * self.spacings[images][:, None, None]
        xy = undistort((corner + 0.5 - k[..., 2:4]) / k[..., :2], k[..., 4:])
        u, v = (corner.long() - crops[..., :2]).unbind(-1)
        within = (u >= 0) & (v >= 0) & (u < crops[..., 2]) & (v < crops[..., 3])
        local = torch.where(within, v * crops[..., 2] + u, 0)
        bits = p.bits[p.firsts[images, 1][:, None] + local // 8]
        grey = p.rgb[p.firsts[images, 0][:, None] + local].float().mean(dim=2) / 255
        grey = grey - grey.mean(dim=1, keepdim=True)
        norm = grey.norm(dim=1)
        good = (within & ((bits >> (7 - local % 8)) % 2 > 0)).all(dim=1)
        good &= norm > _LEAST_CONTRAST * grey.shape[1] ** 0.5
        directions = torch.nn.functional.pad(xy, (0, 1), value=1.0) @ p.rotations[images].mT
        return directions, grey / norm.clamp_min(1e-6)[:, None], good


def compare(
    views: Views, rays: ColorRays, crossings: Crossings, sensors: SensorModel, occupancy: Occupancy, *, refines: bool
) -> tuple[Float[Tensor, "patches neighbours"], Bool[Tensor, "patches neighbours"]]:
    """Correlation of the patches around rays with what their neighbours show there, and where that may be asked.

    It may not where a neighbour sees the place at a slant, hidden behind other parts, or cut off; nor for patches that
    reach over the silhouette or have no texture.

    Args:
        rays: as the sensors are now thought to stand; the crossings are on them.
        refines: whether the sensors' corrections get gradients.
    """
    origins, along = (x[crossings.ray_indices] for x in (rays.rays.origins, rays.rays.directions))
    at = origins + along * crossings.distances[:, None]
    own, here = rays.images[crossings.ray_indices], at.detach()
    partners = views.neighbours[own]
    n, k = partners.shape
    seen_by, of = partners.clamp_min(0).reshape(-1), torch.arange(n, device=at.device).repeat_interleave(k)
    images = torch.cat([own, seen_by])
    motion = views.motion(torch.cat([here, here[of]]), images, sensors, refines=refines)
    own_motion, motion = motion[:n], motion[n:].reshape(n, k, 3)

    # in the photographs' own cameras as given: from the pixels onto the tangent plane, from there into the neighbours
    given = at - own_motion.detach()  # the pixel stays: the place moves along its ray only
    start = views.photographs.origins[own]
    directions, templates, good = views.own_patches(Rays(origins=start, directions=(given - start).detach()), own)
    slope = (directions * crossings.normals[:, None]).sum(dim=2)
    reach = ((given - start) * crossings.normals).sum(dim=1)[:, None] / slope.clamp_max(-_LEAST_SLOPE)
    points = start[:, None] + directions * reach[..., None]
    shifts = own_motion[:, None] - motion
    alike = patch_ncc(points, shifts, templates, partners, views.photographs)
    with torch.no_grad():
        sight = torch.nn.functional.normalize(views.photographs.origins[seen_by] - here[of], dim=1)
        seen = ((crossings.normals[of] * sight).sum(dim=1) > _LEAST_FACING) & is_free(occupancy, here[of], sight)
        good &= (slope < -_LEAST_SLOPE).all(dim=1)
        valid = alike.inside & (alike.contrast > _LEAST_CONTRAST / 2) & seen.reshape(n, k) & good[:, None]
    return alike.correlation, valid


def patch_loss(
    correlation: Float[Tensor, "patches neighbours"], valid: Bool[Tensor, "patches neighbours"], n_rays: int
) -> Tensor:
    """1 - correlation, of the better half of each patch's neighbours; no unit.

    Correlations below 0.6 give no gradient: there something else is seen, a reflection or what lies behind. Where most
    patches are like that the whole term fades out.
    """
    counts = valid.sum(dim=1)
    cost = torch.where(valid, 1 - correlation, torch.inf).sort(dim=1).values
    better = torch.arange(cost.shape[1], device=cost.device) < (counts[:, None] + 1) // 2
    of_patch = torch.where(better, cost.clamp_max(1 - _UNLIKE), 0.0).sum(dim=1) / ((counts + 1) // 2).clamp_min(1)
    asked = counts > 0
    with torch.no_grad():
        share = ((cost[:, 0] < 1 - _UNLIKE) & asked).sum() / asked.sum().clamp_min(1)
        low, high = _TRUSTED_SHARE
        trust = ((share - low) / (high - low)).clamp(0, 1)
    return trust * (of_patch * asked).sum() / asked.sum().clamp_min(max(n_rays // 4, 1))


def _offsets(device: torch.device) -> Float[Tensor, "samples 2"]:
    step = torch.arange(-_HALF, _HALF + 1.0, device=device)
    return torch.stack(torch.meshgrid(step, step, indexing="xy"), dim=-1).reshape(-1, 2)


def is_free(
    occupancy: Occupancy, points: Float[Tensor, "points 3"], sight: Float[Tensor, "points 3"]
) -> Bool[Tensor, "points"]:
    """Whether nothing lies on the way from points of the surface to whoever looks along `sight`."""
    cell = 1 / occupancy.sdf.shape[0]
    # near the surface by small steps, further off by large ones: 2 cells to the cube's diagonal
    steps = 2 * cell * (3**0.5 / (2 * cell)) ** torch.linspace(0, 1, _SIGHT_STEPS, device=points.device)
    on_way = points[:, None] + sight[:, None] * steps[:, None]
    in_cube = ((on_way > 0) & (on_way < 1)).all(dim=2)
    sdf = occupancy.look_up(on_way.reshape(-1, 3)).reshape(in_cube.shape)
    return ~((sdf < -cell / 2) & in_cube).any(dim=1)
