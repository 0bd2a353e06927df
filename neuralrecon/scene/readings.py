"""Depth readings that lie on the object, each cast from the depth camera itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from ..geometry import Camera, Rays, Rigid, Similarity
from .batch import DepthRays
from .hull import VisualHull
from .trust import Support, split


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """Points that depth cameras measured on the object, with the camera centre each was measured from (unit)."""

    points: Float[Tensor, "readings 3"]
    frames: Int[Tensor, "readings"]
    inlier: Float[Tensor, "readings"]
    free: Bool[Tensor, "x y z"]
    origins: Float[Tensor, "depth_images 3"]
    rotations: Float[Tensor, "depth_images 3 3"]
    sensors: Int[Tensor, "depth_images"]
    stops: Int[Tensor, "depth_images"]

    def per_mm2(self, area_mm2: float) -> float:
        """How many of the readings that are believed there are for each square millimetre of a surface."""
        return float(self.inlier.sum()) / area_mm2

    def disbelieving(self, wrong: Bool[Tensor, "readings"], unit_per_mm: float) -> Readings:
        """The same, with an inlier probability of 0 for some, and with the room that is free by what is left."""
        inlier = torch.where(wrong, 0.0, self.inlier)
        ways = split(self.points, self.frames, self.origins)
        believed = [part.numpy() for part in inlier.split([len(way.points) for way in ways])]
        return replace(self, inlier=inlier, free=torch.from_numpy(Support.of(ways, unit_per_mm).free(ways, believed)))

    def draw(self, n: int, generator: torch.Generator) -> DepthRays:
        chosen = torch.randint(len(self.points), (n,), generator=generator)
        frames = self.frames[chosen]
        origins = self.origins[frames]
        along = self.points[chosen] - origins
        distances = along.norm(dim=1)
        return DepthRays(
            rays=Rays(origins=origins, directions=along / distances[:, None]),
            distances=distances,
            inlier=self.inlier[chosen],
            world_from_cam=self.rotations[frames],
            sensors=self.sensors[frames],
            stops=self.stops[frames],
        )

    @staticmethod
    def gather(
        points: Sequence[Tensor],
        cam_from_world: Sequence[Rigid],
        sensors: Sequence[int],
        stops: Sequence[int],
        unit_from_world: Similarity,
        world_per_mm: float,
    ) -> Readings:
        """From points per depth image, in world metres; `sensors` and `stops` count as the capture's."""
        frames = torch.cat([torch.full((len(p),), i, dtype=torch.int32) for i, p in enumerate(points)])
        centers = torch.stack([pose.inverse().translation for pose in cam_from_world])
        in_unit, origins = (
            unit_from_world.apply(torch.cat(list(points))).float(),
            unit_from_world.apply(centers).float(),
        )
        ways = split(in_unit, frames, origins)
        support = Support.of(ways, unit_from_world.scale * world_per_mm)
        inlier = support.probabilities(ways)
        return Readings(
            points=in_unit,
            frames=frames,
            inlier=torch.from_numpy(np.concatenate(inlier)),
            free=torch.from_numpy(support.free(ways, inlier)),
            origins=origins,
            rotations=torch.stack([pose.rotation.mT for pose in cam_from_world]).float(),
            sensors=torch.tensor(list(sensors)),
            stops=torch.tensor(list(stops)),
        )


def points_of(depth: Float32[np.ndarray, "v u"], camera: Camera, cam_from_world: Rigid) -> Float[Tensor, "readings 3"]:
    """Every reading of a depth image (metres along the axis, 0 = none) as a point in world metres."""
    v, u = np.nonzero(depth)
    pixels = torch.from_numpy(np.stack([u, v], axis=1).astype(np.float64)) + 0.5
    in_cam = camera.rays(pixels) * torch.from_numpy(depth[v, u].astype(np.float64))[:, None]
    return cam_from_world.to(torch.float64).inverse().apply(in_cam)


def on_object(
    points_in_world: Float[Tensor, "readings 3"],
    hull: VisualHull,
    unit_from_world: Similarity,
    tolerance_m: float,
    floor_m: float | None,
) -> Tensor:
    """Which points lie within `tolerance_m` of the hull and above the table: the rest is table, room or error."""
    in_unit = unit_from_world.apply(points_in_world).float()
    in_cube = ((in_unit >= 0) & (in_unit <= 1)).all(dim=1)
    keep = in_cube & (hull.look_up(in_unit) < tolerance_m * unit_from_world.scale)
    return keep if floor_m is None else keep & (points_in_world[:, 2] > floor_m)
