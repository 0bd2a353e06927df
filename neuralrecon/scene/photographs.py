"""Photographs cropped to the object, kept as bytes, and the rays through their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import binary_dilation
from torch import Tensor

from ..geometry import Camera, Rays, Rigid, Similarity
from ..geometry.camera import undistort
from .batch import ColorRays
from .silhouettes import crop_around


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """One image's crop from pixel (u0, v0) on, with everything a ray through it needs."""

    name: str
    camera: Camera
    cam_from_world: Rigid
    rig_from_world: Float[Tensor, "3 3"]
    sensor: int
    stop: int
    u0: int
    v0: int
    rgb: UInt8[np.ndarray, "v u 3"]
    inside: Bool[np.ndarray, "v u"]

    @staticmethod
    def cropped(
        rgb: UInt8[np.ndarray, "v u 3"],
        mask: Bool[np.ndarray, "v u"],
        margin_px: int,
        **known,
    ) -> Photograph:
        u0, v0, u1, v1 = crop_around(mask, margin_px)
        return Photograph(u0=u0, v0=v0, rgb=rgb[v0:v1, u0:u1].copy(), inside=mask[v0:v1, u0:u1].copy(), **known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """All crops in one run of pixels; pixel i belongs to the image whose span `starts` brackets it."""

    rgb: UInt8[Tensor, "pixels 3"]
    inside: Bool[Tensor, "pixels"]
    pools: tuple[Int[Tensor, "interior"], Int[Tensor, "edge"]]
    starts: Int[Tensor, "images_plus_one"]
    corners: Int[Tensor, "images 3"]  # u0, v0, width of the crop
    intrinsics: Float[Tensor, "images 9"]  # fx fy cx cy k1 k2 p1 p2 k3
    rotations: Float[Tensor, "images 3 3"]  # world_from_cam
    origins: Float[Tensor, "images 3"]  # unit
    rig_from_world: Float[Tensor, "images 3 3"]
    sensors: Int[Tensor, "images"]
    stops: Int[Tensor, "images"]

    @staticmethod
    def gather(photographs: Sequence[Photograph], unit_from_world: Similarity, edge_px: int) -> Pixels:
        sizes = [p.inside.size for p in photographs]
        pools = [[], []]
        start = 0
        for photograph in photographs:
            # the outline is learned from a strip on both sides of it; further out the hull already rules
            reach = np.asarray(binary_dilation(photograph.inside, iterations=edge_px), bool)
            shallow = np.asarray(binary_dilation(~photograph.inside, iterations=edge_px), bool)
            pools[0].append(np.flatnonzero(photograph.inside).astype(np.int32) + start)
            pools[1].append(np.flatnonzero(reach & shallow).astype(np.int32) + start)
            start += photograph.inside.size
        world_from_cam = [p.cam_from_world.inverse() for p in photographs]
        cameras = [p.camera for p in photographs]
        return Pixels(
            rgb=torch.from_numpy(np.concatenate([p.rgb.reshape(-1, 3) for p in photographs])),
            inside=torch.from_numpy(np.concatenate([p.inside.ravel() for p in photographs])),
            pools=(torch.from_numpy(np.concatenate(pools[0])), torch.from_numpy(np.concatenate(pools[1]))),
            starts=torch.tensor([0, *np.cumsum(sizes)]),
            corners=torch.tensor([[p.u0, p.v0, p.inside.shape[1]] for p in photographs]),
            intrinsics=torch.tensor([[c.fx, c.fy, c.cx, c.cy, *c.distortion] for c in cameras]),
            rotations=torch.stack([t.rotation for t in world_from_cam]).float(),
            origins=torch.stack([unit_from_world.apply(t.translation) for t in world_from_cam]).float(),
            rig_from_world=torch.stack([p.rig_from_world for p in photographs]).float(),
            sensors=torch.tensor([p.sensor for p in photographs]),
            stops=torch.tensor([p.stop for p in photographs]),
        )

    def draw(self, n_interior: int, n_edge: int, generator: torch.Generator) -> ColorRays:
        """Rays through pixels drawn evenly from the silhouettes' insides and from the strips along their outlines."""
        chosen = [
            pool[torch.randint(len(pool), (n,), generator=generator)].long()
            for pool, n in zip(self.pools, (n_interior, n_edge), strict=True)
        ]
        return self.rays(torch.cat(chosen))

    def rays(self, pixels: Int[Tensor, "rays"]) -> ColorRays:
        """Rays through the centres of pixels, given as positions in the run."""
        image = torch.searchsorted(self.starts, pixels, right=True) - 1
        u0, v0, width = self.corners[image].unbind(1)
        local = pixels - self.starts[image]
        uv = torch.stack([u0 + local % width, v0 + local // width], dim=1) + 0.5
        k = self.intrinsics[image]
        xy = undistort((uv - k[:, 2:4]) / k[:, 0:2], k[:, 4:])
        in_cam = torch.cat([xy, torch.ones_like(xy[:, :1])], dim=1)
        directions = (self.rotations[image] @ in_cam[:, :, None])[:, :, 0]
        return ColorRays(
            rays=Rays(origins=self.origins[image], directions=torch.nn.functional.normalize(directions, dim=1)),
            colors=self.rgb[pixels].float() / 255,
            inside=self.inside[pixels],
            rig_from_world=self.rig_from_world[image],
            world_from_cam=self.rotations[image],
            sensors=self.sensors[image],
            stops=self.stops[image],
            images=image,
        )
