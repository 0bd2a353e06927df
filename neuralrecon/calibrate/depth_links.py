"""What depth images say about points: the plane of readings around the pixel where a point projects."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from jaxtyping import Float

from .projection import Observations, RigState, in_camera, project

_HALF = 2
_ROUGH_M = 0.002

ReadDepth = Callable[[int, int], Float[np.ndarray, "v u"]]


def link_depth(
    state: RigState,
    images: Iterable[tuple[int, int]],
    read_depth: ReadDepth,
    *,
    tolerance_m: float,
    sigma_m: Callable[[np.ndarray], np.ndarray],
) -> Observations:
    """Observations of the state's points by depth images (pairs of sensor and stop).

    A point counts where the 5 x 5 readings around its pixel are all there and lie on a plane to within 2 mm, and that
    plane is no further than `tolerance_m` from the point: else it is hidden or at an edge. `sigma_m` is the standard
    deviation of a reading of z metres.
    """
    found = [_linked(state, sensor, stop, read_depth(sensor, stop), tolerance_m, sigma_m) for sensor, stop in images]
    return Observations(
        **{name: np.concatenate([getattr(one, name) for one in found]) for name in Observations.__slots__}
    )


def _linked(
    state: RigState, sensor: int, stop: int, depth: np.ndarray, tolerance_m: float, sigma_m: Callable
) -> Observations:
    n = len(state.points)
    every = _seen(np.full(n, sensor), np.full(n, stop), np.arange(n))
    _, in_cam = in_camera(state, every)
    pixel = project(state.intrinsics[every.sensor], in_cam)
    column, row = np.floor(pixel).T
    height, width = depth.shape
    inside = (in_cam[:, 2] > 0.05) & (column >= _HALF) & (row >= _HALF)
    inside &= (column < width - _HALF) & (row < height - _HALF)
    which = np.flatnonzero(inside)
    column, row = column[which].astype(int), row[which].astype(int)
    step = np.arange(-_HALF, _HALF + 1)
    dv, du = (x.ravel() for x in np.meshgrid(step, step, indexing="ij"))
    around = depth[row[:, None] + dv, column[:, None] + du].astype(np.float64)
    middle = around.mean(axis=1)
    slope = np.stack([(around * d).sum(axis=1) / (d**2).sum() for d in (du, dv)], axis=1)
    rough = np.abs(around - middle[:, None] - slope @ np.stack([du, dv])).max(axis=1)
    at = np.stack([column, row], axis=1) + 0.5
    expected = (middle + (slope * (pixel[which] - at)).sum(axis=1)) * state.intrinsics[sensor, -1]
    good = (around > 0).all(axis=1) & (rough < _ROUGH_M) & (np.abs(in_cam[which, 2] - expected) < tolerance_m)
    which, at, middle, slope = which[good], at[good], middle[good], slope[good]
    return _seen(
        np.full(len(which), sensor),
        np.full(len(which), stop),
        which,
        pixel=at,
        reading=middle,
        slope=slope,
        sigma=sigma_m(middle),
    )


def _seen(sensor, stop, point, *, pixel=None, reading=None, slope=None, sigma=None) -> Observations:
    n = len(sensor)
    return Observations(
        sensor=sensor,
        stop=stop,
        point=point,
        pixel=np.zeros((n, 2)) if pixel is None else pixel,
        sigma=np.ones(n) if sigma is None else sigma,
        reading=np.full(n, np.nan) if reading is None else reading,
        slope=np.full((n, 2), np.nan) if slope is None else slope,
    )
