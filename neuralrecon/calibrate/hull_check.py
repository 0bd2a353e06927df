"""Do silhouettes and poses agree? The hull of all other views must cover a view's own silhouette."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from ..geometry import Camera
from .checks import inverted

_SIDE = 64
_MAX_PIXELS = 4000


def silhouette_shares(
    masks: Sequence[Bool[np.ndarray, "v u"]],
    cameras: Sequence[Camera],
    cam_from_world: Float[np.ndarray, "views 4 4"],
) -> Float[np.ndarray, "views"]:
    """Per view, the share of its mask that the hull of the other views covers, to a voxel (1/64 of the object).

    A right view's silhouette lies within the projection of every hull that the object lies in. One or two wrong views
    (5 %) may carve too much before right ones suffer: a voxel goes only if more views than that say so.
    """
    low, high = _around_object(masks, cameras, cam_from_world)
    axes = [np.linspace(a, b, _SIDE) for a, b in zip(low, high, strict=True)]
    voxels = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    outside = np.zeros(len(voxels), dtype=np.int32)
    own = []
    for mask, camera, pose in zip(masks, cameras, cam_from_world, strict=True):
        is_outside = ~_looked_up(mask, _pixels(camera, pose, voxels))
        outside += is_outside
        own.append(np.packbits(is_outside))
    allowed = len(masks) // 20
    shares = np.zeros(len(masks))
    for i, (mask, camera, pose) in enumerate(zip(masks, cameras, cam_from_world, strict=True)):
        others = outside - np.unpackbits(own[i], count=len(voxels)).astype(np.int32)
        hull = voxels[others <= allowed]
        shares[i] = _covered(mask, camera, pose, hull, float((high - low).max()) / (_SIDE - 1))
    return shares


def _around_object(masks: Sequence[ndarray], cameras: Sequence[Camera], poses: ndarray) -> tuple[ndarray, ndarray]:
    """A cube around the point nearest to the rays through the masks' middles, as large as most masks say."""
    world_from_cam = inverted(poses)
    centres, directions, half_angles = world_from_cam[:, :3, 3], [], []
    for mask, camera, pose in zip(masks, cameras, world_from_cam, strict=True):
        v, u = np.nonzero(mask)
        middle = np.array([[(u.min() + u.max() + 1) / 2, (v.min() + v.max() + 1) / 2]])
        half_angles.append(0.5 * np.hypot(np.ptp(u) + 1, np.ptp(v) + 1) / camera.fx)
        ray = camera.rays(torch.from_numpy(middle)).numpy()[0]
        directions.append(pose[:3, :3] @ (ray / np.linalg.norm(ray)))
    across = np.eye(3) - np.array(directions)[:, :, None] * np.array(directions)[:, None, :]
    weight = np.ones(len(poses))
    for _ in range(10):
        right = (weight[:, None] * np.einsum("nij,nj->ni", across, centres)).sum(0)
        point = np.linalg.solve((weight[:, None, None] * across).sum(0), right)
        off = np.linalg.norm(np.einsum("nij,nj->ni", across, point - centres), axis=1)
        weight = 1 / np.maximum(off, max(0.1 * float(np.median(off)), 1e-12))
    radius = 1.3 * float(np.median(np.array(half_angles) * np.linalg.norm(centres - point, axis=1)))
    return np.subtract(point, radius), np.add(point, radius)


def _pixels(camera: Camera, cam_from_world: ndarray, points: ndarray) -> ndarray:
    in_cam = torch.from_numpy(points @ cam_from_world[:3, :3].T + cam_from_world[:3, 3])
    pixels = camera.project(in_cam).numpy()
    pixels[in_cam[:, 2].numpy() <= 0] = -1e6
    return pixels


def _looked_up(mask: ndarray, pixels: ndarray) -> ndarray:
    """The mask at pixels; beside the picture nothing is known, so it may be object."""
    u, v = np.floor(pixels[:, 0]).astype(int), np.floor(pixels[:, 1]).astype(int)
    inside = (u >= 0) & (v >= 0) & (u < mask.shape[1]) & (v < mask.shape[0])
    out = np.ones(len(pixels), dtype=bool)
    out[inside] = mask[v[inside], u[inside]]
    return out


def _covered(mask: ndarray, camera: Camera, pose: ndarray, hull: ndarray, voxel: float) -> float:
    """Share of the mask's pixels within a voxel's diagonal of a hull voxel's projection."""
    v, u = np.nonzero(mask)
    if not len(hull) or not len(u):
        return 0.0
    depth = np.median(hull @ pose[2, :3] + pose[2, 3])
    cell = max(1.0, 1.8 * voxel * camera.fx / max(float(depth), 1e-9))
    pixels = _pixels(camera, pose, hull)
    shape = (int(mask.shape[0] / cell) + 3, int(mask.shape[1] / cell) + 3)
    filled = np.zeros(shape, dtype=bool)
    a, b = (pixels[:, 1] / cell).astype(int) + 1, (pixels[:, 0] / cell).astype(int) + 1
    ok = (a >= 0) & (b >= 0) & (a < shape[0]) & (b < shape[1])
    filled[a[ok], b[ok]] = True
    step = max(1, len(u) // _MAX_PIXELS)
    return float(filled[(v[::step] / cell).astype(int) + 1, (u[::step] / cell).astype(int) + 1].mean())
