"""Photographs at working size, each with its camera: what outlines are looked for in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ..capture import Capture, Image, camera_of, read_color, read_mask
from ..geometry import Camera, Rigid

Outline = Bool[np.ndarray, "v u"]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One photograph, its sides divided by `downscale`. `given` is the outline that the capture came with."""

    image: Image
    downscale: int
    rgb: UInt8[np.ndarray, "v u 3"]
    given: Outline | None
    camera: Camera
    cam_from_world: Rigid

    @staticmethod
    def read(capture: Capture, image: Image, downscale: int) -> View:
        """The sides divided by `downscale`, of the file's own size.

        Raises:
            CaptureError: a file that cannot be read.
        """
        small = replace(capture, downscale=downscale)
        return View(
            image=image,
            downscale=downscale,
            rgb=read_color(small, image),
            given=None if image.mask_path is None else read_mask(small, image),
            camera=camera_of(small, image),
            cam_from_world=capture.sensor_from_world(image),
        )

    @property
    def name(self) -> str:
        return self.image.path.name

    @property
    def center(self) -> Float[np.ndarray, "3"]:
        """The camera's centre in world."""
        return self.cam_from_world.inverse().translation.numpy()

    def project(
        self, points_in_world: Float[Tensor, "points 3"]
    ) -> tuple[Float[Tensor, "points 2"], Bool[Tensor, "points"], Float[Tensor, "points"]]:
        """Pixels (u, v), whether the photograph shows them, and depths (world units along the optical axis)."""
        pose = self.cam_from_world.to(points_in_world.dtype)
        in_cam = points_in_world @ pose.rotation.T + pose.translation
        depth = in_cam[:, 2]
        uv = self.camera.project(torch.cat([in_cam[:, :2], depth.clamp_min(1e-9)[:, None]], dim=1))
        seen = (depth > 1e-9) & (uv >= 0).all(1) & (uv[:, 0] < self.camera.width) & (uv[:, 1] < self.camera.height)
        return uv, seen, depth

    def ray(self, uv: Float[np.ndarray, "2"]) -> Float[np.ndarray, "3"]:
        """Unit direction in world through a pixel."""
        in_cam = self.camera.rays(torch.as_tensor(uv, dtype=torch.float64))
        direction = self.cam_from_world.inverse().rotate(in_cam).numpy()
        return direction / np.linalg.norm(direction)

    def moved(self, new_from_world: Rigid) -> View:
        """The same view in another world."""
        return replace(self, cam_from_world=self.cam_from_world @ new_from_world.inverse())
