"""Where a capture's sparse points say the table is, and which of them lie on the object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial import KDTree

from ..capture.types import SparsePoints
from ..geometry import Rigid

_TOLERANCE = 0.004  # of the cameras' distance: how far off the plane a point of the table may lie
_N_TRIES = 4000
_LEAST_SHARE, _MOST_BELOW, _LEAST_CAMERAS_ABOVE = 0.15, 0.01, 0.95
_REACH = 0.5  # of the cameras' distance: the object lies within it of where the cameras look
_N_NEIGHBOURS, _LONELY = 8, 4.0  # a point this many times further from its n-th neighbour than is usual is an error
_RESTING_QUANTILE = 0.005  # so many of the points may lie under the plane that the object rests on
_STEPS_DEG = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Points x with ``normal @ x = offset``; the normal has unit length and points to the cameras."""

    normal: Float[np.ndarray, "3"]
    offset: float

    def height(self, points: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points"]:
        return points @ self.normal - self.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaze:
    """Where the cameras stand, and the point that they look at."""

    centers: Float[np.ndarray, "cameras 3"]
    target: Float[np.ndarray, "3"]
    up: Float[np.ndarray, "3"]

    @property
    def distance(self) -> float:
        return float(np.median(np.linalg.norm(self.centers - self.target, axis=1)))


def trusted_points(points: SparsePoints, gaze: Gaze) -> Float[np.ndarray, "points 3"]:
    """Points near where the cameras look, without those that few images saw, that fit badly, or that stand alone."""
    n_seen = np.bincount(points.point_index, minlength=len(points.xyz))
    keep = np.linalg.norm(points.xyz - gaze.target, axis=1) < _REACH * gaze.distance
    if n_seen.any():
        keep &= n_seen >= 3
    known = np.isfinite(points.error_px)
    if known.any():
        keep &= ~(points.error_px > 3 * float(np.median(points.error_px[known])))
    xyz = points.xyz[keep]
    if len(xyz) <= _N_NEIGHBOURS:
        return xyz
    apart = KDTree(xyz).query(xyz, _N_NEIGHBOURS + 1)[0][:, -1]
    return xyz[apart < _LONELY * np.median(apart)]


def seen_table(points: Float[np.ndarray, "points 3"], gaze: Gaze) -> Plane | None:
    """The plane that most points lie on (RANSAC; always the same), if all is above it: points, cameras, the target."""
    if len(points) < 50:
        return None
    tolerance = _TOLERANCE * gaze.distance
    corners = points[np.random.default_rng(0).integers(0, len(points), (_N_TRIES, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    real = lengths > 1e-12
    normals, on = normals[real] / lengths[real, None], corners[real, 0]
    normals *= np.sign(((gaze.centers.mean(0) - on) * normals).sum(1))[:, None]
    offsets = (normals * on).sum(1)
    above = (gaze.centers @ normals.T > offsets).mean(0) >= _LEAST_CAMERAS_ABOVE
    heights = points @ normals.T - offsets
    allowed = above & ((heights < -4 * tolerance).mean(0) <= _MOST_BELOW)
    votes = np.where(allowed, (np.abs(heights) < tolerance).sum(0), 0)
    best = int(votes.argmax())
    if votes[best] < _LEAST_SHARE * len(points):
        return None
    plane = Plane(normal=normals[best], offset=float(offsets[best]))
    for _ in range(3):
        flat = points[np.abs(plane.height(points)) < tolerance]
        normal = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)[2][2]
        normal = normal * np.sign(normal @ plane.normal)
        plane = Plane(normal=normal, offset=float(normal @ flat.mean(axis=0)))
    return plane


def resting_plane(points: Float[np.ndarray, "points 3"], gaze: Gaze) -> Plane | None:
    """The plane under the object on which it would stay: the pose of least height of its points' middle.

    It is looked for around the cameras' mean upward direction. None if a camera would be under it.
    """

    def energy(normal: np.ndarray) -> float:
        heights = points @ normal
        return float(heights.mean() - np.quantile(heights, _RESTING_QUANTILE))

    normal = gaze.up
    for step in _STEPS_DEG:
        while True:
            around = [_tilted(normal, angle, step) for angle in range(0, 360, 30)]
            best = min(around, key=energy)
            if energy(best) >= energy(normal):
                break
            normal = best
    plane = Plane(normal=normal, offset=float(np.quantile(points @ normal, _RESTING_QUANTILE)))
    return plane if (plane.height(gaze.centers) > 0).all() else None


def above(points: Float[np.ndarray, "points 3"], plane: Plane, gaze: Gaze) -> Float[np.ndarray, "above 3"]:
    """The points that are clearly not on the plane."""
    return points[plane.height(points) > 3 * _TOLERANCE * gaze.distance]


def table_from_world(plane: Plane, origin: Float[np.ndarray, "3"]) -> Rigid:
    """Into the frame whose z = 0 is the plane, z up, with `origin` above its origin and x as near as can be to x."""
    z = plane.normal
    along = np.eye(3)[0] if abs(z[0]) < 0.9 else np.eye(3)[1]
    x = along - (along @ z) * z
    x /= np.linalg.norm(x)
    rotation = np.stack([x, np.cross(z, x), z])
    foot = origin - plane.height(origin[None])[0] * z
    return Rigid(rotation=torch.from_numpy(rotation), translation=torch.from_numpy(-rotation @ foot))


def _tilted(normal: np.ndarray, towards_deg: float, by_deg: float) -> np.ndarray:
    first = np.cross(normal, np.eye(3)[int(np.abs(normal).argmin())])
    first /= np.linalg.norm(first)
    second = np.cross(normal, first)
    way = np.cos(np.radians(towards_deg)) * first + np.sin(np.radians(towards_deg)) * second
    return np.cos(np.radians(by_deg)) * normal + np.sin(np.radians(by_deg)) * way
