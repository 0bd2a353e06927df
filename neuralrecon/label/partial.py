"""What one depth camera saw of the object: clouds with holes, in the same frame as the mesh."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from scipy.spatial import KDTree

from ..files import write_npz
from ..geometry import Rigid
from .depth_inliers import BELIEVED
from .observed import View
from .solid import Solid

_NEIGHBOURS = 6
_LONELY = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialCloud:
    """The points of one depth map, in the world frame and metres; the camera looks along z of `cam_from_world`.

    `raw` is all that was measured near the object, `cleaned` the part of it that the mesh, or the probability of each
    reading, confirms.
    """

    raw: Float32[np.ndarray, "raw 3"]
    cleaned: Float32[np.ndarray, "cleaned 3"]
    cam_from_world: Float[np.ndarray, "4 4"]

    def save(self, path: Path) -> Path:
        """An .npz file; its `world_from_mesh` says that the mesh's vertices are in the same frame as the clouds."""
        return write_npz(
            path,
            raw=self.raw,
            cleaned=self.cleaned,
            cam_from_world=self.cam_from_world,
            world_from_mesh=np.eye(4),
        )


def partial_cloud(
    depth_m: Float32[np.ndarray, "height width"],
    view: View,
    solid: Solid,
    *,
    margin_m: float,
    distance_m: float,
    table_z_m: float | None = None,
    probability: Float32[np.ndarray, "height width"] | None = None,
) -> PartialCloud:
    """Raw and cleaned points of a depth map (metres along the optical axis, 0 where missing).

    Raw: inside the mesh's bounding box grown by `margin_m`, and, on a table, above it by `distance_m`, so that the
    table itself is left out. Cleaned: of these, the ones within `distance_m` of the mesh whose sixth neighbour is at
    most four times as far as is usual in this cloud; the rest are flying pixels and readings of something else.
    """
    v, u = np.nonzero(depth_m > 0)
    pixels = torch.from_numpy(np.stack([u + 0.5, v + 0.5], axis=1))
    in_cam = view.camera.rays(pixels) * torch.from_numpy(depth_m[v, u].astype(np.float64))[:, None]
    cam_from_world = view.cam_from_world.to(torch.float64)
    points = cam_from_world.inverse().apply(in_cam).numpy()
    bounds = np.array(solid.mesh.bounds)
    low, high = bounds[0] - margin_m, bounds[1] + margin_m
    if table_z_m is not None:
        low[2] = max(low[2], table_z_m + distance_m)
    near = ((points >= low) & (points <= high)).all(axis=1)
    raw = points[near].astype(np.float32)
    cleaned = _confirmed(raw, solid, distance_m) if probability is None else raw[probability[v, u][near] >= BELIEVED]
    return PartialCloud(raw=raw, cleaned=cleaned, cam_from_world=_matrix(cam_from_world))


def _confirmed(raw, solid: Solid, distance_m: float):
    if len(raw) == 0:
        return raw
    near = raw[solid.closest(raw.astype(np.float64))[0] <= distance_m]
    if len(near) <= _NEIGHBOURS:
        return near[:0]
    sixth = np.asarray(KDTree(near).query(near, k=_NEIGHBOURS + 1)[0])[:, -1]
    return near[sixth <= _LONELY * np.median(sixth)]


def _matrix(rigid: Rigid):
    return rigid.matrix().numpy()
