"""Silhouettes as signed distances in pixels: how far, and on which side of the outline, a point projects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..geometry import Camera, Rigid
from .distance import signed_distance

_LONGEST_SIDE = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Silhouette:
    """The outline of the object in one image, cropped to it.

    `distance_px` is positive outside, sampled every `stride` pixels from pixel (u0, v0) on; what lies in the image but
    off the crop is outside; what lies off the image is unknown. `weight` is how much this outline counts against a
    point that it leaves out: points go at a sum of 1.
    """

    camera: Camera
    cam_from_world: Rigid
    distance_px: Float[Tensor, "v u"]
    u0: int
    v0: int
    stride: int
    weight: float = 1.0

    @staticmethod
    def from_mask(
        mask: Bool[np.ndarray, "v u"],
        camera: Camera,
        cam_from_world: Rigid,
        margin_px: int,
        corner: tuple[int, int] = (0, 0),
    ) -> Silhouette:
        """From the mask of an image, or of the part of it from the pixel `corner` (u, v) on that holds the object."""
        u0, v0, u1, v1 = crop_around(mask, margin_px)
        stride = max(1, -(-max(u1 - u0, v1 - v0) // _LONGEST_SIDE))
        crop = mask[v0:v1:stride, u0:u1:stride]
        signed = signed_distance(crop) * stride
        return Silhouette(
            camera=camera,
            cam_from_world=cam_from_world.to(torch.float32),
            distance_px=torch.from_numpy(signed.astype(np.float32)),
            u0=u0 + corner[0],
            v0=v0 + corner[1],
            stride=stride,
        )

    def look_up(
        self, points_in_world: Float[Tensor, "points 3"]
    ) -> tuple[Float[Tensor, "points"], Float[Tensor, "points"]]:
        """Signed distance to the outline in pixels, and pixels per metre at each point.

        A point that this image does not show (off the image, behind the camera) gets -inf: it says nothing against it.
        """
        in_cam = self.cam_from_world.rotation @ points_in_world.t() + self.cam_from_world.translation[:, None]
        depth = in_cam[2].clamp_min(1e-6)
        pixels = self.camera.project(in_cam.t())
        u, v = pixels[:, 0], pixels[:, 1]
        seen = (in_cam[2] > 1e-6) & (u >= 0) & (v >= 0) & (u < self.camera.width) & (v < self.camera.height)
        height, width = self.distance_px.shape
        column = ((u - self.u0 - 0.5) / self.stride).round()
        row = ((v - self.v0 - 0.5) / self.stride).round()
        nearest_column, nearest_row = column.clamp(0, width - 1), row.clamp(0, height - 1)
        # beyond the crop, which is convex: the outline lies no nearer than this, so no ball is carved too soon
        beyond = torch.hypot(column - nearest_column, row - nearest_row) * self.stride
        at_edge = self.distance_px[nearest_row.long(), nearest_column.long()]
        distance = torch.where(beyond > 0, torch.hypot(at_edge.clamp_min(0), beyond), at_edge)
        return torch.where(seen, distance, -torch.inf), max(self.camera.fx, self.camera.fy) / depth

    def center_ray(self) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"], float]:
        """Camera centre and unit direction through the crop's middle in world, and the crop's half diagonal / f."""
        height, width = self.distance_px.shape
        middle = torch.tensor([self.u0 + width * self.stride / 2, self.v0 + height * self.stride / 2])
        world_from_cam = self.cam_from_world.inverse()
        direction = world_from_cam.rotate(self.camera.rays(middle))
        half = 0.5 * self.stride * (height**2 + width**2) ** 0.5 / min(self.camera.fx, self.camera.fy)
        return world_from_cam.translation, direction / direction.norm(), half


def crop_around(mask: Bool[np.ndarray, "v u"], margin_px: int) -> tuple[int, int, int, int]:
    """Bounds u0, v0, u1, v1 (ends exclusive) of what is True, `margin_px` wider, within the image."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    return (
        max(0, int(columns[0]) - margin_px),
        max(0, int(rows[0]) - margin_px),
        min(width, int(columns[-1]) + 1 + margin_px),
        min(height, int(rows[-1]) + 1 + margin_px),
    )
