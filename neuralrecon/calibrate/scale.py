"""How many metres a unit of a reconstruction from photographs is, by depth images of a camera beside one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from ..errors import CalibrationError
from ..geometry import Camera, Rigid

_LARGEST_STEP = 0.02
_LEAST_READINGS = 30
_N_ITERATIONS = 50
_CONVERGED = 1e-9
_MEDIAN_TO_SIGMA = 1.4826
_MEDIAN_SPREAD = 1.2533


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthView:
    """A depth image in metres along the axis (0 = missing), and the points that the photograph taken with it sees.

    The photograph's camera and the depth camera hang together by `depth_from_color`, in metres.
    """

    depth: Float[np.ndarray, "v u"]
    camera: Camera
    depth_from_color: Rigid
    points_in_color: Float[np.ndarray, "points 3"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Metres per unit, its relative standard error, and on how much it rests.

    The error is that of a median over the images, each with its own median, so what all images have in common (a depth
    sensor whose readings are 0.2 % long) is not in it.
    """

    metres_per_unit: float
    relative_error: float
    n_readings: int
    n_images: int


def scale_from_depth(views: Sequence[DepthView]) -> Scale:
    """Metres per unit as the median over sparse points of how far a reading says they are.

    A point X of the photograph's camera, in units, lies at s R X + t in the depth camera, t in metres. So a reading z
    at that pixel gives s = (z - t_z) / (R X)_z; the pixel depends on s, hence the iteration. Readings beside an edge of
    depth (a step of more than 2 % to a neighbour) or beside a missing one do not count.

    Raises:
        CalibrationError: fewer than 30 points fall on readings.
    """
    by_image = _ratios(views, None)
    for _ in range(_N_ITERATIONS):
        before = _median(by_image)
        by_image = _ratios(views, before)
        if abs(_median(by_image) / before - 1) < _CONVERGED:
            break
    medians = np.log([np.median(ratios) for ratios in by_image])
    spread = _MEDIAN_TO_SIGMA * float(np.median(np.abs(medians - np.median(medians))))
    return Scale(
        metres_per_unit=_median(by_image),
        relative_error=float(_MEDIAN_SPREAD * spread / np.sqrt(len(by_image))),
        n_readings=sum(len(r) for r in by_image),
        n_images=len(by_image),
    )


def _median(by_image: list[ndarray]) -> float:
    return float(np.exp(np.median(np.log(np.concatenate(by_image)))))


def _ratios(views: Sequence[DepthView], scale: float | None) -> list[ndarray]:
    """Per image, the scales that its readings give; without a scale yet the baseline is left out of account.

    Raises:
        CalibrationError: too few.
    """
    found = []
    for view in views:
        rotated = view.depth_from_color.rotate(torch.from_numpy(np.asarray(view.points_in_color, dtype=np.float64)))
        shift = view.depth_from_color.translation.double()
        placed = rotated if scale is None else scale * rotated + shift
        inverse = inverse_depth_at(view.depth, view.camera.project(placed).numpy())
        ahead = (placed[:, 2].numpy() > 0) & np.isfinite(inverse)
        ratio = (1 / inverse[ahead] - float(shift[2])) / rotated[:, 2].numpy()[ahead]
        found.append(ratio[ratio > 0])
    found = [r for r in found if len(r)]
    n = sum(len(r) for r in found)
    if n < _LEAST_READINGS:
        raise CalibrationError(
            f"scale from depth: {n} sparse points fall on depth readings, want {_LEAST_READINGS} or more; check which "
            "colour camera each depth camera belongs to and its depth_from_color"
        )
    return found


def inverse_depth_at(depth: Float[np.ndarray, "v u"], pixels: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
    """1 / depth between the four pixels around each place (u, v), NaN beside edges, missing readings and the rim.

    Inverse depth is linear in the pixel on a plane, so on planes this is exact.
    """
    u, v = pixels[:, 0] - 0.5, pixels[:, 1] - 0.5
    inside = (u >= 0) & (v >= 0) & (u < depth.shape[1] - 1) & (v < depth.shape[0] - 1)
    u, v = np.where(inside, u, 0.0), np.where(inside, v, 0.0)
    left, top = u.astype(int), v.astype(int)
    corners = np.stack([depth[top + j, left + i] for j in (0, 1) for i in (0, 1)]).astype(np.float64)
    usable = inside & (corners > 0).all(axis=0)
    usable &= corners.max(axis=0) <= (1 + _LARGEST_STEP) * corners.min(axis=0)
    inverse = 1 / np.where(usable, corners, 1.0)
    fu, fv = u - left, v - top
    value = (1 - fv) * ((1 - fu) * inverse[0] + fu * inverse[1]) + fv * ((1 - fu) * inverse[2] + fu * inverse[3])
    return np.where(usable, value, np.nan)
