"""Pinhole camera with OpenCV's five-parameter distortion."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import CalibrationError

_UNDISTORT_STEPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """Intrinsics of one sensor. Pixel (u, v) covers [u, u + 1) x [v, v + 1): its centre is at +0.5.

    OpenCV's own matrices put the centre of the first pixel at 0: read them with `from_opencv`.
    `distortion` is k1 k2 p1 p2 k3. Camera axes: x right, y down, z forward.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not (self.width > 0 and self.height > 0 and self.fx > 0 and self.fy > 0):
            raise CalibrationError(
                f"a camera needs a positive size and focal length, got {self.width} x {self.height} px, "
                f"f = ({self.fx}, {self.fy}) px"
            )

    @staticmethod
    def from_opencv(
        matrix: Float[Tensor, "3 3"],
        width: int,
        height: int,
        distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0),
    ) -> Camera:
        """From a 3 x 3 matrix whose pixel centres are integers (OpenCV, MATLAB minus one, BigBIRD)."""
        if matrix.shape != (3, 3) or not bool(torch.isfinite(matrix).all()):
            raise CalibrationError(f"intrinsics must be a finite 3 x 3 matrix, got {matrix.tolist()}")
        fx, fy, cx, cy = (float(matrix[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
        return Camera(width=width, height=height, fx=fx, fy=fy, cx=cx + 0.5, cy=cy + 0.5, distortion=distortion)

    def opencv_matrix(self) -> Float[Tensor, "3 3"]:
        """The 3 x 3 matrix with pixel centres at integers: inverse of `from_opencv`."""
        rows = [[self.fx, 0.0, self.cx - 0.5], [0.0, self.fy, self.cy - 0.5], [0.0, 0.0, 1.0]]
        return torch.tensor(rows, dtype=torch.float64)

    def resized(self, width: int, height: int) -> Camera:
        """The same camera whose image was resampled to `width` x `height` px."""
        sx, sy = width / self.width, height / self.height
        return Camera(
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=self.cx * sx,
            cy=self.cy * sy,
            distortion=self.distortion,
        )

    def project(self, points_in_cam: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 2"]:
        """Pixel coordinates (u, v) of points in front of the camera (z > 0; others give a meaningless value)."""
        xy = points_in_cam[..., :2] / points_in_cam[..., 2:]
        if any(self.distortion):
            xy = distort(xy, xy.new_tensor(self.distortion))
        f = xy.new_tensor([self.fx, self.fy])
        return xy * f + xy.new_tensor([self.cx, self.cy])

    def rays(self, pixels: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points 3"]:
        """Directions in the camera frame with z = 1 (scale by depth to get points), distortion undone."""
        f = pixels.new_tensor([self.fx, self.fy])
        xy = (pixels - pixels.new_tensor([self.cx, self.cy])) / f
        if any(self.distortion):
            xy = undistort(xy, xy.new_tensor(self.distortion))
        return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)


def distort(xy: Float[Tensor, "*points 2"], coefficients: Float[Tensor, "*#points 5"]) -> Float[Tensor, "*points 2"]:
    """Ideal image plane (z = 1) to distorted, by OpenCV's k1 k2 p1 p2 k3."""
    k1, k2, p1, p2, k3 = coefficients.unbind(-1)
    x, y = xy[..., 0], xy[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return torch.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        dim=-1,
    )


def undistort(xy: Float[Tensor, "*points 2"], coefficients: Float[Tensor, "*#points 5"]) -> Float[Tensor, "*points 2"]:
    """Inverse of `distort` by fixed-point iteration.

    For the mild distortion of such rigs eight steps reach float32's precision.
    """
    ideal = xy
    for _ in range(_UNDISTORT_STEPS):
        ideal = ideal - (distort(ideal, coefficients) - xy)
    return ideal
