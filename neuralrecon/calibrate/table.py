"""Which way is up: the table under the object becomes z = 0, a turntable's axis z."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

_N_TRIALS = 2000
_THICKNESS = 0.004
_LEAST_SHARE = 0.08
_MOST_BELOW = 0.03
_OWN_SPREAD = 3.0
_STILL_SAME = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where the world is put: rigid, so still in the reconstruction's own units. `share` of the points lie on z = 0."""

    world_from_points: Float[np.ndarray, "4 4"]
    has_table: bool
    share: float


def find_ground(
    points: Float[np.ndarray, "points 3"],
    centres: Float[np.ndarray, "views 3"],
    looked_at: Float[np.ndarray, "3"],
    *,
    axis_from_points: Float[np.ndarray, "4 4"] | None = None,
    seed: int = 0,
) -> Ground:
    """The dominant plane with (nearly) no points below it, as seen from the cameras.

    With a turntable's axis the plane is square to it and the origin on it; else the origin is under `looked_at`.
    Without such a plane the origin is `looked_at` (or its foot on the axis), z the axis or the mean direction towards
    the cameras, and `has_table` is False. The thickness of the plane is 0.4 % of the cameras' distance.
    """
    reach = float(np.median(np.linalg.norm(centres - looked_at, axis=1)))
    near = points[np.linalg.norm(points - looked_at, axis=1) < reach]
    if axis_from_points is not None:
        turned = _upwards(axis_from_points, centres, looked_at)
        height, share = _table_height(_moved(turned, near)[:, 2], _THICKNESS * reach)
        found = share >= _LEAST_SHARE
        turned = turned.copy()
        turned[2, 3] -= height if found else _moved(turned, looked_at[None])[0, 2]
        return Ground(world_from_points=turned, has_table=found, share=share if found else 0.0)
    normal, offset, share = _lowest_plane(near, centres.mean(axis=0), _THICKNESS * reach, seed)
    if share < _LEAST_SHARE:
        towards = centres.mean(axis=0) - looked_at
        return Ground(
            world_from_points=_frame(towards / np.linalg.norm(towards), looked_at), has_table=False, share=0.0
        )
    foot = looked_at - (normal @ looked_at - offset) * normal
    return Ground(world_from_points=_frame(normal, foot), has_table=True, share=share)


def _upwards(axis_from_points: ndarray, centres: ndarray, looked_at: ndarray) -> ndarray:
    """The axis frame with z towards the cameras' side."""
    z = _moved(axis_from_points, centres)[:, 2].mean() - _moved(axis_from_points, looked_at[None])[0, 2]
    return axis_from_points if z >= 0 else np.diag([1.0, -1.0, -1.0, 1.0]) @ axis_from_points


def _table_height(z: ndarray, thickness: float) -> tuple[float, float]:
    """Height of the fullest layer that has nearly nothing below it, and its share of the points."""
    if len(z) < 10:
        return 0.0, 0.0
    order = np.sort(z)
    low, high = np.searchsorted(order, order - thickness), np.searchsorted(order, order + thickness)
    allowed = low <= _MOST_BELOW * len(order) + 1
    count = np.where(allowed, high - low, 0)
    best = int(count.argmax())
    layer = order[low[best] : high[best]]
    return float(np.median(layer)), len(layer) / len(order)


def _lowest_plane(points: ndarray, above: ndarray, thickness: float, seed: int) -> tuple[ndarray, float, float]:
    """Normal (towards `above`), offset and share of the points of the plane found by RANSAC."""
    best: tuple[ndarray, float, float] = (np.array([0.0, 0.0, 1.0]), 0.0, 0.0)
    if len(points) < 10:
        return best
    rng = np.random.default_rng(seed)
    for _ in range(_N_TRIALS):
        a, b, c = points[rng.choice(len(points), 3, replace=False)]
        normal = np.cross(b - a, c - a)
        size = np.linalg.norm(normal)
        if size < 1e-12:
            continue
        plane = _scored(points, normal / size, float(normal @ a / size), above, thickness)
        best = plane if plane[2] > best[2] else best
    for _ in range(5):
        normal, offset, share = best
        height = np.abs(points @ normal - offset)
        own, height = points[height < thickness], height[height < thickness]
        if share == 0.0 or len(own) < 3:
            break
        # What stands on the table reaches into the layer from above: fit the plane's own, narrower spread.
        own = own[height <= max(_OWN_SPREAD * float(np.median(height)), 1e-9)]
        middle = own.mean(axis=0)
        fitted = np.linalg.svd(own - middle, full_matrices=False)[2][2]
        plane = _scored(points, fitted, float(fitted @ middle), above, thickness)
        if plane[2] < _STILL_SAME * share:
            break
        best = plane
    return best


def _scored(
    points: ndarray, normal: ndarray, offset: float, above: ndarray, thickness: float
) -> tuple[ndarray, float, float]:
    if normal @ above < offset:
        normal, offset = -normal, -offset
    height = points @ normal - offset
    share = float((np.abs(height) < thickness).mean())
    return normal, offset, share if (height < -thickness).mean() <= _MOST_BELOW else 0.0


def _frame(normal: ndarray, origin: ndarray) -> ndarray:
    side = np.cross(normal, np.eye(3)[np.argmin(np.abs(normal))])
    side /= np.linalg.norm(side)
    out = np.eye(4)
    out[:3, :3] = np.stack([side, np.cross(normal, side), normal])
    out[:3, 3] = -out[:3, :3] @ origin
    return out


def _moved(transform: ndarray, points: ndarray) -> ndarray:
    return points @ transform[:3, :3].T + transform[:3, 3]
