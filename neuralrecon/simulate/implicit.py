"""Solids written as signed distances (positive outside) and turned into closed meshes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import trimesh
from jaxtyping import Float
from numpy import ndarray
from skimage.measure import marching_cubes

Distance = Callable[[Float[np.ndarray, "points 3"]], Float[np.ndarray, "points"]]


def union(a: ndarray, b: ndarray, blend_m: float) -> ndarray:
    """Smooth minimum of two distances: the seam is filled over about `blend_m` (polynomial blend)."""
    h = np.maximum(blend_m - np.abs(a - b), 0) / blend_m
    return np.minimum(a, b) - h * h * blend_m / 4


def intersection(a: ndarray, b: ndarray, blend_m: float) -> ndarray:
    """Smooth maximum of two distances: the edge is rounded over about `blend_m`."""
    return -union(-a, -b, blend_m)


def capsule(points: ndarray, start: tuple, end: tuple, radius_start: float, radius_end: float) -> ndarray:
    """A limb from `start` to `end` whose radius changes along the way (a distance to first order)."""
    a, axis = np.asarray(start), np.asarray(end, dtype=float) - np.asarray(start)
    along = np.clip((points - a) @ axis / (axis @ axis), 0, 1)
    return np.linalg.norm(points - a - along[:, None] * axis, axis=1) - (
        radius_start + (radius_end - radius_start) * along
    )


def closed_mesh(distance: Distance, low: tuple, high: tuple, voxel_m: float) -> trimesh.Trimesh:
    """The zero set inside the box `low` … `high` (which must hold all of it), vertices moved onto it by Newton."""
    axes = [np.arange(low[i], high[i] + voxel_m, voxel_m) for i in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    values = distance(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(voxel_m,) * 3)
    vertices = vertices.astype(np.float64) + np.array([axis[0] for axis in axes])
    for _ in range(3):
        value, slope = distance(vertices), _gradient(distance, vertices)
        step = value[:, None] * slope / np.maximum((slope**2).sum(1, keepdims=True), 1e-6)
        vertices -= np.clip(step, -voxel_m / 2, voxel_m / 2)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    if mesh.volume < 0:
        mesh.invert()
    return mesh


def _gradient(distance: Distance, points: ndarray) -> ndarray:
    h = 1e-6
    steps = np.eye(3) * h
    return np.stack([(distance(points + s) - distance(points - s)) / (2 * h) for s in steps], axis=1)
