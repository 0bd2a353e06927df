"""Where labels are asked for: uniform in a box, on the surface, near it. Points in the mesh's frame, in its unit."""

from __future__ import annotations

import numpy as np
import trimesh
from jaxtyping import Float, Int


def in_box(
    low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"], n_points: int, rng: np.random.Generator
) -> Float[np.ndarray, "points 3"]:
    """Uniform in the axis-aligned box."""
    return rng.uniform(low, high, (n_points, 3))


def in_ball(radius: float, n_points: int, rng: np.random.Generator) -> Float[np.ndarray, "points 3"]:
    """Uniform in the ball about the origin."""
    direction = rng.normal(size=(n_points, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * radius * np.cbrt(rng.random((n_points, 1)))


def on_surface(
    mesh: trimesh.Trimesh, n_points: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "points 3"], Int[np.ndarray, "points"]]:
    """Uniform by area, with the face of each point."""
    cumulative = np.cumsum(mesh.area_faces)
    face = np.searchsorted(cumulative, rng.random(n_points) * cumulative[-1]).clip(max=len(cumulative) - 1)
    corners = np.asarray(mesh.vertices, dtype=np.float64)[np.asarray(mesh.faces)[face]]
    root, share = np.sqrt(rng.random((n_points, 1))), rng.random((n_points, 1))
    weights = np.stack([1 - root, root * (1 - share), root * share], axis=1)
    return (corners * weights).sum(axis=1), face


def near_surface(
    mesh: trimesh.Trimesh, n_points: int, sigma: float, rng: np.random.Generator
) -> Float[np.ndarray, "points 3"]:
    """Surface points displaced by a normal distribution of standard deviation `sigma` along each axis."""
    return on_surface(mesh, n_points, rng)[0] + rng.normal(0.0, sigma, (n_points, 3))


def padded_bounds(mesh: trimesh.Trimesh, padding: float) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """The bounding box, grown on every side by `padding` times its longest side."""
    low, high = np.asarray(mesh.bounds, dtype=np.float64)
    margin = padding * float((high - low).max())
    return low - margin, high + margin
