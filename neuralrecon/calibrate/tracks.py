"""From matches to points: what the rig's geometry allows is joined into tracks and triangulated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

from .projection import Observations, RigState, rays, residuals

_STILL_PX = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Keypoints:
    """Features of all photographs in one list: which photograph, its sensor and stop, and where."""

    image: Int[np.ndarray, "keypoints"]
    sensor: Int[np.ndarray, "keypoints"]
    stop: Int[np.ndarray, "keypoints"]
    pixel: Float[np.ndarray, "keypoints 2"]

    def seen(self, which: np.ndarray, point: np.ndarray, sigma_px: float) -> Observations:
        """These keypoints as observations of points."""
        n = len(which)
        return Observations(
            sensor=self.sensor[which],
            stop=self.stop[which],
            point=point,
            pixel=self.pixel[which],
            sigma=np.full(n, sigma_px),
            reading=np.full(n, np.nan),
            slope=np.full((n, 2), np.nan),
        )


def gather_keypoints(
    names: Sequence[str], of_image: Mapping[str, np.ndarray], sensor: Sequence[int], stop: Sequence[int]
) -> tuple[Keypoints, dict[str, np.ndarray]]:
    """All keypoints, and for each image the list's index of each of its features.

    SIFT gives a place with two orientations twice: both become one keypoint.
    """
    pixels, image, index_of, n = [], [], {}, 0
    for i, name in enumerate(names):
        unique, inverse = np.unique(of_image[name].round(3), axis=0, return_inverse=True)
        index_of[name] = inverse.ravel() + n
        pixels.append(unique)
        image.append(np.full(len(unique), i))
        n += len(unique)
    of = np.concatenate(image)
    return (
        Keypoints(image=of, sensor=np.asarray(sensor)[of], stop=np.asarray(stop)[of], pixel=np.concatenate(pixels)),
        index_of,
    )


def gather_matches(
    matches: Mapping[tuple[str, str], np.ndarray], index_of: Mapping[str, np.ndarray], keypoints: Keypoints
) -> Int[np.ndarray, "matches 2"]:
    """All matches as pairs of keypoints, without those of the backdrop.

    What one fixed camera sees at the same pixel at two stops has not turned with the table: it contradicts the motion.
    """
    pairs = np.concatenate([np.stack([index_of[a][m[:, 0]], index_of[b][m[:, 1]]], 1) for (a, b), m in matches.items()])
    a, b = pairs.T
    moved = np.linalg.norm(keypoints.pixel[a] - keypoints.pixel[b], axis=1) > _STILL_PX
    same_sensor = (keypoints.sensor[a] == keypoints.sensor[b]) & (keypoints.stop[a] != keypoints.stop[b])
    return pairs[moved | ~same_sensor]


def off_epipolar_px(
    state: RigState, keypoints: Keypoints, matches: Int[np.ndarray, "matches 2"]
) -> Float[np.ndarray, "matches"]:
    """How far, in pixels of the second image, a match is from where the first one's ray can be seen."""
    point = np.zeros(len(keypoints.pixel), np.int64)
    center, direction = rays(state, keypoints.seen(np.arange(len(point)), point, 1.0))
    a, b = matches.T
    normal = np.cross(center[b] - center[a], direction[a])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return np.abs((normal * direction[b]).sum(axis=1)) * state.intrinsics[keypoints.sensor[b], 0]


def join_tracks(
    keypoints: Keypoints, matches: Int[np.ndarray, "matches 2"], *, shortest: int
) -> tuple[Int[np.ndarray, "seen"], Int[np.ndarray, "seen"]]:
    """Matches joined to tracks: keypoints, and the track (0, 1, ...) that each belongs to.

    Where a track has several keypoints in one photograph none of these counts; if that leaves fewer than `shortest`
    photographs the track goes.
    """
    n = len(keypoints.pixel)
    graph = scipy.sparse.coo_matrix((np.ones(len(matches), np.int8), matches.T), shape=(n, n))
    _, track = scipy.sparse.csgraph.connected_components(graph, directed=False)
    which = np.unique(matches)
    track = track[which]
    key = track.astype(np.int64) * (keypoints.image.max() + 1) + keypoints.image[which]
    _, inverse, count = np.unique(key, return_inverse=True, return_counts=True)
    single = count[inverse] == 1
    which, track = which[single], track[single]
    length = np.bincount(track)
    long = length[track] >= shortest
    which, track = which[long], track[long]
    return which, np.unique(track, return_inverse=True)[1]


def triangulate(state: RigState, seen: Observations, n_points: int) -> Float[np.ndarray, "points 3"]:
    """The points nearest to all their rays (least squares, in world)."""
    center, direction = rays(state, seen)
    across = np.eye(3) - direction[:, :, None] * direction[:, None, :]
    matrix, right = np.zeros((n_points, 3, 3)), np.zeros((n_points, 3))
    np.add.at(matrix, seen.point, across)
    np.add.at(right, seen.point, np.einsum("mij,mj->mi", across, center))
    return np.linalg.solve(matrix + 1e-9 * np.eye(3), right[:, :, None])[:, :, 0]


def widest_angle_deg(state: RigState, seen: Observations, n_points: int) -> Float[np.ndarray, "points"]:
    """Twice the largest angle between a point's rays and their mean direction."""
    _, direction = rays(state, seen)
    mean = np.zeros((n_points, 3))
    np.add.at(mean, seen.point, direction)
    mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
    angle = np.arccos(np.clip((mean[seen.point] * direction).sum(axis=1), -1, 1))
    widest = np.zeros(n_points)
    np.maximum.at(widest, seen.point, angle)
    return np.degrees(2 * widest)


def fitting(
    state: RigState, seen: Observations, *, within_px: float, least_angle_deg: float, shortest: int
) -> np.ndarray:
    """Which observations to keep: near their point, and of a point that enough such rays see from apart."""
    sigma = np.where(seen.is_depth, 1.0, seen.sigma)
    off = np.linalg.norm(residuals(state, seen), axis=1) * sigma
    near = off < within_px
    enough = np.bincount(seen.point[near], minlength=len(state.points)) >= shortest
    near &= enough[seen.point]
    angle = widest_angle_deg(state, seen[near], len(state.points))
    return near & (angle[seen.point] >= least_angle_deg)


def renumbered(state: RigState, seen: Observations) -> tuple[RigState, Observations]:
    """Only the points that are seen."""
    from dataclasses import replace

    points, point = np.unique(seen.point, return_inverse=True)
    return state.with_points(state.points[points]), replace(seen, point=point)


def spread_over_space(
    points: Float[np.ndarray, "points 3"], length: Int[np.ndarray, "points"], n_points: int
) -> np.ndarray:
    """Which points to keep, at most `n_points`: the longest tracks of every cell of a grid, the cells in turn."""
    if len(points) <= n_points:
        return np.ones(len(points), bool)
    low, high = np.quantile(points, [0.02, 0.98], axis=0)
    cell = np.floor((points - low) / max(float((high - low).max()) / 24, 1e-12)).astype(np.int64)
    _, cell = np.unique(cell, axis=0, return_inverse=True)
    order = np.lexsort((-length, cell.ravel()))
    starts = np.searchsorted(cell.ravel()[order], np.arange(cell.max() + 1))
    rank = np.empty(len(points), np.int64)
    rank[order] = np.arange(len(points)) - starts[cell.ravel()[order]]
    keep = np.zeros(len(points), bool)
    keep[np.lexsort((-length, rank))[:n_points]] = True
    return keep
