"""Observations to hundredths of a pixel: the patch around each point aligned between the photographs that see it.

SIFT finds a corner to half a pixel, and worse on surfaces seen at a slant. Once points and rig are about right, the
tangent plane at a point says how its patch looks in every other photograph; what is left is a shift, found by Lucas
and Kanade's iteration ("An iterative image registration technique", 1981), gain and offset of the grey values apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage
import torch
from jaxtyping import Bool, Float
from scipy.spatial import KDTree
from torch import Tensor

from ..ops import Patches, align_patches, sample_patches
from .projection import Observations, RigState, in_camera, linearised, project, rays

_N_SAMPLES = 15**2
_N_STEPS = 8
_NEIGHBOURS = 12
_LARGEST_SHIFT_PX = 3.0
_BLUR_PX = 0.8
_LEAST_FACING = 0.05
_LEAST_CORRELATION = 0.8

ReadGrey = Callable[[int, int], Float[np.ndarray, "v u"]]


def sharpen(
    state: RigState, seen: Observations, read_grey: ReadGrey
) -> tuple[Float[np.ndarray, "seen 2"], Bool[np.ndarray, "seen"]]:
    """Aligned pixels of the photographs' observations, and which of them could be aligned.

    `read_grey(sensor, stop)` gives a photograph as grey values; each is read twice. A point's reference is the
    photograph that shows its surface largest; its pixel stays as it is and all others follow it.
    """
    plane = _Planes.around(state, seen)
    pixel, aligned = seen.pixel.copy(), np.zeros(len(seen), bool)
    templates, has_template = torch.zeros(len(state.points), _N_SAMPLES), np.zeros(len(state.points), bool)
    references = np.zeros(len(seen), bool)
    references[plane.reference] = True
    for sensor, stop, which in _by_image(seen, references & plane.usable):
        values, inside = sample_patches(_channels(read_grey(sensor, stop)), plane.patches(which), _N_SAMPLES)
        centred = values - values.mean(dim=1, keepdim=True)
        templates[seen.point[which]] = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-6)
        aligned[which] = has_template[seen.point[which]] = inside.numpy()
    for sensor, stop, which in _by_image(seen, plane.usable & has_template[seen.point] & ~references):
        patches = plane.patches(which)
        found = align_patches(_channels(read_grey(sensor, stop)), patches, templates[seen.point[which]], _N_STEPS)
        moved = (found.center - patches.center).abs().amax(dim=1)
        good = found.inside & (found.correlation > _LEAST_CORRELATION) & (found.last_step < 0.05)
        pixel[which] = found.center.double().numpy()
        aligned[which] = (good & (moved < _LARGEST_SHIFT_PX)).numpy()
    return pixel, aligned


def surface_normals(state: RigState, seen: Observations) -> Float[np.ndarray, "points 3"]:
    """Unit normals of the surface that the points lie on, towards the cameras, from each point's nearest ones."""
    _, near = KDTree(state.points).query(state.points, k=min(_NEIGHBOURS, len(state.points)))
    apart = state.points[near] - state.points[near].mean(axis=1, keepdims=True)
    normal = np.linalg.svd(apart, full_matrices=False)[2][:, 2]
    towards = np.zeros_like(normal)
    np.add.at(towards, seen.point, -rays(state, seen)[1])
    return normal * np.where((normal * towards).sum(axis=1, keepdims=True) < 0, -1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planes:
    """The tangent plane around each point as each of its observations sees it.

    A step on the plane is a pixel of the point's `reference`, the observation that shows the plane largest.
    """

    pixel: np.ndarray
    by_step: np.ndarray
    tilt: np.ndarray
    usable: np.ndarray
    reference: np.ndarray

    @staticmethod
    def around(state: RigState, seen: Observations) -> _Planes:
        normal = surface_normals(state, seen)
        first = np.cross(normal, np.eye(3)[np.abs(normal).argmin(axis=1)])
        first /= np.linalg.norm(first, axis=1, keepdims=True)
        tangents = np.stack([first, np.cross(normal, first)], axis=2)
        _, in_cam = in_camera(state, seen)
        cam_from_world = state.sensor_rotation[seen.sensor] @ state.stop_rotation[seen.stop]
        in_px = replace(seen, sigma=np.ones(len(seen)))
        by_step = linearised(state, in_px).by_point @ tangents[seen.point]
        tilt = (cam_from_world @ tangents[seen.point])[:, 2] / in_cam[:, 2:]
        facing = -(normal[seen.point] * rays(state, seen)[1]).sum(axis=1)
        size = np.sqrt(np.abs(np.linalg.det(by_step))) * (facing > _LEAST_FACING) * ~seen.is_depth
        order = np.lexsort((-size, seen.point))
        reference = order[np.unique(seen.point[order], return_index=True)[1]]
        spacing = np.zeros(len(state.points))
        spacing[seen.point[reference]] = 1 / np.maximum(size[reference], 1e-9)
        off = np.abs(seen.pixel - project(state.intrinsics[seen.sensor], in_cam)).max(axis=1)
        return _Planes(
            pixel=seen.pixel,
            by_step=by_step * spacing[seen.point][:, None, None],
            tilt=tilt * spacing[seen.point][:, None],
            usable=(size > 0) & (off < _LARGEST_SHIFT_PX),
            reference=reference,
        )

    def patches(self, which: np.ndarray) -> Patches:
        center, by_step, tilt = (torch.from_numpy(x[which]).float() for x in (self.pixel, self.by_step, self.tilt))
        return Patches(center=center, by_step=by_step, tilt=tilt)


def _channels(grey: np.ndarray) -> Tensor:
    """A smoothed photograph and its derivatives by u and v."""
    smooth = scipy.ndimage.gaussian_filter(grey.astype(np.float32), _BLUR_PX)
    by_v, by_u = np.gradient(smooth)
    return torch.from_numpy(np.stack([smooth, by_u, by_v]))


def _by_image(seen: Observations, keep: np.ndarray):
    """(sensor, stop, indices of its observations) of every image that has some to keep."""
    which = np.flatnonzero(keep)
    key = seen.stop[which] * (int(seen.sensor.max()) + 1) + seen.sensor[which]
    order = np.argsort(key, kind="stable")
    which, key = which[order], key[order]
    for run in np.split(which, np.flatnonzero(np.diff(key)) + 1):
        if len(run):
            yield int(seen.sensor[run[0]]), int(seen.stop[run[0]]), run
