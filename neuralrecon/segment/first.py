"""A first guess of the outlines: from a uniform backdrop, or from the sparse points of the object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.ndimage import binary_closing, binary_fill_holes, binary_opening
from scipy.spatial import ConvexHull
from skimage.draw import polygon2mask
from skimage.filters import threshold_otsu

from .grabcut import Region, cut_alone
from .pieces import largest_piece
from .views import Outline, View

_BORDER = 0.04  # of the longer side: the strip in which a backdrop shows
_UNIFORM_SHARE, _UNIFORM_LEVELS = 0.85, 24.0  # so much of the strip lies within so many grey levels of one colour
# Otsu's threshold parts the object's lit side from all else; its shaded side is darker
_LEAST_LEVELS, _OF_OTSU = 12.0, 0.4
_LEAST_AREA = 0.002  # of the photograph
_REACH, _DEEP = 0.25, 0.15  # of the points' outline: how far the object may go beyond it, and what is surely object


def backdrop_color(views: Sequence[View]) -> Float[np.ndarray, "3"] | None:
    """The colour that nearly all photographs have along their borders, or None if there is none."""
    strips = np.concatenate([_border(v.rgb)[:: max(1, len(views) // 8)] for v in views]).astype(np.float64)
    color = np.median(strips, axis=0)
    near = np.linalg.norm(strips - color, axis=1) < _UNIFORM_LEVELS
    return color if near.mean() >= _UNIFORM_SHARE else None


def outline_on_backdrop(view: View, color: Float[np.ndarray, "3"]) -> Outline:
    """What differs from the backdrop, in one piece and without holes; nothing may be left."""
    off = np.linalg.norm(view.rgb.astype(np.float32) - color.astype(np.float32), axis=2)
    apart = binary_opening(off > max(_LEAST_LEVELS, _OF_OTSU * float(threshold_otsu(off))), iterations=1)
    closed = binary_closing(np.pad(apart, 4), iterations=3)[4:-4, 4:-4]
    return largest_piece(np.asarray(binary_fill_holes(closed)), _LEAST_AREA)


def outline_by_points(view: View, points_in_world: Float[np.ndarray, "points 3"]) -> Outline:
    """GrabCut around the convex outline of the object's points."""
    uv, seen, _ = view.project(torch.from_numpy(points_in_world))
    uv = uv[seen].numpy()
    shape = (view.camera.height, view.camera.width)
    if len(uv) < 3 or np.linalg.matrix_rank(uv - uv.mean(axis=0), tol=1.0) < 2:
        return np.zeros(shape, bool)
    hull = polygon2mask(shape, uv[ConvexHull(uv).vertices][:, ::-1] - 0.5)
    if not hull.any():
        return hull
    region = Region.around(hull, outwards=_REACH, inwards=_DEEP)
    return largest_piece(cut_alone(view.rgb, region, n_iterations=3, surround=0.3), _LEAST_AREA)


def _border(rgb: UInt8[np.ndarray, "v u 3"]) -> UInt8[np.ndarray, "pixels 3"]:
    n = max(2, round(_BORDER * max(rgb.shape[:2])))
    return np.concatenate([strip.reshape(-1, 3) for strip in (rgb[:n], rgb[-n:], rgb[n:-n, :n], rgb[n:-n, -n:])])
