"""Photographs cropped to the object, and the rays through their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ..geometry import Camera, Rays, Rigid, Similarity
from ..geometry.camera import undistort
from .batch import ColorRays
from .crops import Crop, Store, cut_mask, laid_out
from .parallel import in_parallel
from .silhouettes import Silhouette
from .spans import Spans, grown, runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """One image's crop, with everything a ray through it needs."""

    name: str
    camera: Camera
    cam_from_world: Rigid
    rig_from_world: Float[Tensor, "3 3"]
    sensor: int
    stop: int
    store: Store
    crop: Crop

    @staticmethod
    def cropped(
        rgb: UInt8[np.ndarray, "v u 3"],
        mask: Bool[np.ndarray, "v u"],
        margin_px: int,
        **known,
    ) -> Photograph:
        """From a picture in memory."""
        box, bits = cut_mask(mask, margin_px)
        u0, v0, u1, v1 = box
        store = Store(rgb=rgb[v0:v1, u0:u1].reshape(-1, 3).copy(), bits=bits)
        return Photograph(store=store, crop=laid_out([box])[0], **known)

    @property
    def rgb(self) -> UInt8[np.ndarray, "v u 3"]:
        crop = self.crop
        return self.store.rgb[crop.first : crop.first + crop.n_pixels].reshape(crop.height, crop.width, 3)

    @property
    def inside(self) -> Bool[np.ndarray, "v u"]:
        """The silhouette; unpacked anew on every call."""
        crop = self.crop
        bits = self.store.bits[crop.first_byte : crop.first_byte + crop.n_bytes]
        return np.unpackbits(bits, count=crop.n_pixels).reshape(crop.height, crop.width).view(bool)

    def silhouette(self, margin_px: int) -> Silhouette:
        corner = (self.crop.u0, self.crop.v0)
        return Silhouette.from_mask(self.inside, self.camera, self.cam_from_world, margin_px, corner)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pixels:
    """All crops as one run of pixels; pixel i belongs to the image whose span `starts` brackets it.

    `rgb` and `bits` (masks, eight pixels a byte) may be files mapped into memory, and hold more than these images:
    `firsts` says where each image begins in them. `pools` are the pixels inside the silhouettes, and those in the strip
    along their outlines.
    """

    rgb: UInt8[Tensor, "stored 3"]
    bits: UInt8[Tensor, "bytes"]
    firsts: Int[Tensor, "images 2"]  # pixel in rgb, byte in bits
    pools: tuple[Spans, Spans]
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
        """Of photographs with one store nothing is copied."""
        starts = [0, *accumulate(p.crop.n_pixels for p in photographs)]
        stretches = list(in_parallel("outlines gathered", lambda p: _stretches(p.inside, edge_px), photographs))
        interiors, strips = zip(*stretches, strict=True)
        store, firsts = _joined(photographs)
        world_from_cam = [p.cam_from_world.inverse() for p in photographs]
        cameras = [p.camera for p in photographs]
        return Pixels(
            rgb=torch.from_numpy(store.rgb),
            bits=torch.from_numpy(store.bits),
            firsts=torch.tensor(firsts),
            pools=(Spans.of(interiors, starts[:-1]), Spans.of(strips, starts[:-1])),
            starts=torch.tensor(starts),
            corners=torch.tensor([[p.crop.u0, p.crop.v0, p.crop.width] for p in photographs]),
            intrinsics=torch.tensor([[c.fx, c.fy, c.cx, c.cy, *c.distortion] for c in cameras]),
            rotations=torch.stack([t.rotation for t in world_from_cam]).float(),
            origins=torch.stack([unit_from_world.apply(t.translation) for t in world_from_cam]).float(),
            rig_from_world=torch.stack([p.rig_from_world for p in photographs]).float(),
            sensors=torch.tensor([p.sensor for p in photographs]),
            stops=torch.tensor([p.stop for p in photographs]),
        )

    def draw(self, n_interior: int, n_edge: int, generator: torch.Generator, n_batches: int = 1) -> ColorRays:
        """Rays through pixels drawn evenly from the silhouettes' insides and from the strips along their outlines.

        `n_batches` follow one another, each with its inner pixels first.
        """
        chosen = [
            pool.at(torch.randint(len(pool), (n_batches, n), generator=generator))
            for pool, n in zip(self.pools, (n_interior, n_edge), strict=True)
        ]
        return self.rays(torch.cat(chosen, dim=1).reshape(-1))

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
            colors=self.rgb[self.firsts[image, 0] + local].float() / 255,
            inside=(self.bits[self.firsts[image, 1] + local // 8] >> (7 - local % 8)) % 2 > 0,
            rig_from_world=self.rig_from_world[image],
            world_from_cam=self.rotations[image],
            sensors=self.sensors[image],
            stops=self.stops[image],
            images=image,
        )


def _stretches(inside: np.ndarray, edge_px: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The pixels inside, and those of a strip on both sides of the outline.

    From that the outline is learned; further out the hull already rules.
    """
    return runs(inside), runs(grown(inside, edge_px) & grown(~inside, edge_px))


def _joined(photographs: Sequence[Photograph]) -> tuple[Store, list[tuple[int, int]]]:
    """One store of all, and the pixel and byte in it with which each photograph begins."""
    stores = {id(p.store): p.store for p in photographs}
    before, n_pixels, n_bytes = {}, 0, 0
    for name, store in stores.items():
        before[name] = n_pixels, n_bytes
        n_pixels, n_bytes = n_pixels + len(store.rgb), n_bytes + len(store.bits)
    firsts = [(p.crop.first + before[id(p.store)][0], p.crop.first_byte + before[id(p.store)][1]) for p in photographs]
    if len(stores) == 1:
        return photographs[0].store, firsts
    rgb, bits = [s.rgb for s in stores.values()], [s.bits for s in stores.values()]
    return Store(rgb=np.concatenate(rgb), bits=np.concatenate(bits)), firsts
