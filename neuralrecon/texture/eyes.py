"""Photographs as the bake looks through them: where a point falls, whether it is in sight, which colour is there.

All lengths are in the fit's unit frame; cameras stand where the fit thinks they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import binary_dilation, distance_transform_edt, gaussian_filter, laplace, sobel
from torch import Tensor
from torch.nn.functional import grid_sample

from ..geometry import Rays
from ..scene import ColorRays, Photograph
from ..scene.parallel import in_parallel
from ..train import Fit
from .caster import Caster

_LONGEST_SIDE = 240  # cells of the map of distances
_STEEPEST = 5.0  # cells' footprints that a surface may recede from cell to cell before it counts as a break
_SLACK = 2.0  # cells' footprints by which a point may lie behind the surface
_RAMP_CELLS = 4.0  # over which trust grows from an outline
_LEAST_SHARP = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Eye:
    """One photograph.

    `cam_from_unit` takes offsets from `origin` to camera axes (it holds the lens' correction, too). `reach` is the
    distance to the mesh through every `stride`-th pixel of the crop, `trust` in [0, 1] is 0 outside of the
    photograph's silhouette, off the mesh and along breaks of the distance, and grows to 1 away from them.
    `sharpness` compares the photograph with the others of its sensor; 1 is the sensor's median and the most.
    """

    photograph: Photograph
    origin: Float[Tensor, "3"]
    cam_from_unit: Float[Tensor, "3 3"]
    reach: Float[Tensor, "v u"]
    trust: Float[Tensor, "v u"]
    stride: int
    footprint: float  # of a cell, as a share of the distance
    sharpness: float = 1.0

    @staticmethod
    def of(photograph: Photograph, fit: Fit, caster: Caster) -> Eye:
        """Casts a ray through every cell's centre."""
        origin, unit_from_cam = _placed(photograph, fit)
        crop, camera = photograph.crop, photograph.camera
        stride = max(1, -(-max(crop.width, crop.height) // _LONGEST_SIDE))
        v, u = (torch.arange(0, n, stride) for n in (crop.height, crop.width))
        uv = torch.stack(torch.meshgrid(u + crop.u0, v + crop.v0, indexing="xy"), dim=-1).reshape(-1, 2) + 0.5
        directions = torch.nn.functional.normalize(camera.rays(uv) @ unit_from_cam.T, dim=1)
        hits = caster.cast(origin.expand_as(directions), directions)
        reach = hits.distances.reshape(len(v), len(u))
        footprint = stride / min(camera.fx, camera.fy)
        trust = _trust(reach.numpy(), photograph.inside[::stride, ::stride], footprint)
        return Eye(
            photograph=photograph,
            origin=origin,
            cam_from_unit=torch.linalg.inv(unit_from_cam),
            reach=torch.where(reach.isfinite(), reach, 0.0),
            trust=torch.from_numpy(trust),
            stride=stride,
            footprint=footprint,
            sharpness=_sharpness(photograph),
        )

    def directions(
        self, points: Float[Tensor, "points 3"]
    ) -> tuple[Float[Tensor, "points 3"], Float[Tensor, "points"]]:
        """Unit directions from the camera to the points, and distances."""
        away = points - self.origin
        distances = away.norm(dim=1)
        return away / distances[:, None], distances

    def pixels(self, points: Float[Tensor, "points 3"]) -> Float[Tensor, "points 2"]:
        """Where points fall in the crop, in pixels from its corner."""
        in_cam = (points - self.origin) @ self.cam_from_unit.T
        in_cam = torch.cat([in_cam[:, :2], in_cam[:, 2:].clamp_min(1e-6)], dim=1)
        crop = self.photograph.crop
        return self.photograph.camera.project(in_cam) - torch.tensor([crop.u0, crop.v0])

    def trusted(self, pixels: Float[Tensor, "points 2"], distances: Float[Tensor, "points"]) -> Float[Tensor, "points"]:
        """How far a view of points is to be trusted: 0 where the mesh hides them, or they are off the silhouette."""
        found = self._looked_up(torch.stack([self.reach, self.trust]), pixels, self.stride)
        in_sight = distances < found[0] + _SLACK * self.footprint * distances
        return torch.where(in_sight, found[1], 0.0)

    def colors(self, pixels: Float[Tensor, "points 2"]) -> Float[Tensor, "points 3"]:
        """sRGB in [0, 1] as the sensor recorded it, interpolated between pixels' centres."""
        rgb = torch.from_numpy(self.photograph.rgb).permute(2, 0, 1).float() / 255
        return self._looked_up(rgb, pixels, 1).T

    def _looked_up(self, maps: Float[Tensor, "k v u"], pixels: Float[Tensor, "points 2"], stride: int):
        """Cell j's centre is pixel j * stride + 0.5; beyond the border all is zero."""
        height, width = maps.shape[1:]
        cells = (pixels - 0.5) / stride
        at = (2 * cells + 1) / torch.tensor([width, height]) - 1
        return grid_sample(maps[None], at[None, None], align_corners=False, padding_mode="zeros")[0, :, 0]


def eyes_of(photographs: Sequence[Photograph], fit: Fit, caster: Caster) -> list[Eye]:
    """Of all photographs; their sharpness is that among their sensor's."""
    eyes = list(in_parallel("views cast", lambda p: Eye.of(p, fit, caster), photographs))
    medians = {
        sensor: float(np.median([e.sharpness for e in eyes if e.photograph.sensor == sensor]))
        for sensor in {e.photograph.sensor for e in eyes}
    }
    return [
        replace(eye, sharpness=min(max(eye.sharpness / medians[eye.photograph.sensor], _LEAST_SHARP), 1.0))
        for eye in eyes
    ]


def view_rays(
    photograph: Photograph, fit: Fit, uv: Float[Tensor, "rays 2"]
) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
    """Origins and unit directions (unit frame) through places in the photograph, in pixels of the whole image."""
    origin, unit_from_cam = _placed(photograph, fit)
    directions = photograph.camera.rays(uv) @ unit_from_cam.T
    return origin.expand_as(directions), torch.nn.functional.normalize(directions, dim=1)


def _placed(photograph: Photograph, fit: Fit) -> tuple[Float[Tensor, "3"], Float[Tensor, "3 3"]]:
    """Centre (unit), and the matrix from camera axes, with the fit's corrections."""
    world_from_cam = photograph.cam_from_world.inverse()
    rotation = world_from_cam.rotation.float()
    origin = fit.unit_from_world.apply(world_from_cam.translation).float()
    three = torch.full((3,), photograph.sensor), torch.full((3,), photograph.stop)
    axes = ColorRays(
        rays=Rays(origins=origin.expand(3, 3), directions=rotation.T.contiguous()),
        colors=torch.zeros(3, 3),
        inside=torch.zeros(3, dtype=torch.bool),
        rig_from_world=photograph.rig_from_world.float().expand(3, 3, 3),
        world_from_cam=rotation.expand(3, 3, 3),
        sensors=three[0],
        stops=three[1],
        images=torch.zeros(3, dtype=torch.long),
    )
    moved = fit.model.sensors.corrected_axes(axes)
    return moved.origins[0], moved.directions.T.contiguous()


def _trust(
    reach: Float[np.ndarray, "v u"], inside: Bool[np.ndarray, "v u"], footprint: float
) -> Float[np.ndarray, "v u"]:
    good = np.isfinite(reach) & inside
    known = np.where(good, reach, 0.0)
    broken = np.zeros_like(good)
    for axis in (0, 1):
        jump = np.abs(np.diff(known, axis=axis)) > _STEEPEST * footprint * np.delete(known, 0, axis=axis)
        pad = [(1, 0), (0, 0)] if axis == 0 else [(0, 0), (1, 0)]
        broken |= np.pad(jump, pad) | np.pad(jump, [side[::-1] for side in pad])
    bad = np.pad(~good | np.asarray(binary_dilation(broken), bool), 1, constant_values=True)
    away = np.asarray(distance_transform_edt(~bad))[1:-1, 1:-1]
    t = np.clip((away - 1) / _RAMP_CELLS, 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def _sharpness(photograph: Photograph) -> float:
    """Energy of second over that of first differences: contrast cancels, blur from focus or motion lowers it."""
    inside = photograph.inside
    light = gaussian_filter(photograph.rgb.astype(np.float32).mean(axis=2), 1.0)
    first = sobel(light, axis=0) ** 2 + sobel(light, axis=1) ** 2
    return float((laplace(light)[inside] ** 2).mean() / max(float(first[inside].mean()), 1e-6))
