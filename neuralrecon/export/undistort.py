"""Photographs as a camera without lens distortion takes them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor

from ..geometry import Camera
from .registered import pixel_centres


@dataclass(frozen=True, slots=True, kw_only=True)
class Undistortion:
    """Pixels of a distorting camera resampled for `camera`, the same one with straight lines: equal K and size.

    `grid` says where each pixel's centre lies in the distorted image, from -1 to 1 across it; None: there as well.
    """

    camera: Camera
    grid: Float32[Tensor, "1 v u 2"] | None

    @staticmethod
    def of(camera: Camera) -> Undistortion:
        straight = replace(camera, distortion=(0.0,) * 5)
        if not any(camera.distortion):
            return Undistortion(camera=straight, grid=None)
        pixels = camera.project(straight.rays(pixel_centres(camera.width, camera.height)))
        grid = 2 * pixels / pixels.new_tensor([camera.width, camera.height]) - 1
        return Undistortion(camera=straight, grid=grid.float()[None])

    def image(self, rgb: UInt8[np.ndarray, "v u 3"]) -> UInt8[np.ndarray, "v u 3"]:
        """Bilinear; black where the distorted image has nothing."""
        if self.grid is None:
            return rgb
        planes = torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float()
        return self._sampled(planes).permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()

    def mask(self, mask: Bool[np.ndarray, "v u"]) -> Bool[np.ndarray, "v u"]:
        """True where at least half of what is sampled is."""
        if self.grid is None:
            return mask
        return (self._sampled(torch.from_numpy(mask)[None].float())[0] >= 0.5).numpy()

    def _sampled(self, planes: Float32[Tensor, "planes v u"]) -> Float32[Tensor, "planes v u"]:
        assert self.grid is not None
        sampled = torch.nn.functional.grid_sample(
            planes[None], self.grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )
        return sampled[0]
