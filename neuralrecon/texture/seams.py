"""Whether the charts' borders show: colours of one place on both sides of a border, beside those within a chart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from .atlas import Atlas
from .look_up import looked_up

_FLAT_DEG = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeamSteps:
    """Differences of colours (mean over channels, sRGB in [0, 1]), medians and 95th percentiles.

    `across`: at the middle of each edge along which two charts meet and the surface bends by less than 20 degrees,
    between the two. `crease`: the same where it bends by more; a box has another print there. `within`: at the middle
    of edges within charts, between places half a texel to both sides, as far as the borders' texels are apart.
    """

    across_median: float
    across_p95: float
    crease_median: float
    crease_p95: float
    within_median: float
    within_p95: float


def seam_steps(atlas: Atlas, image: UInt8[np.ndarray, "v u 3"]) -> SeamSteps:
    """Of a picture on an atlas; zeros where there is no such edge."""
    first, second, is_flat = _sides(atlas)
    is_seam = np.abs(first - second).max(axis=(1, 2)) > 1e-9
    across, crease = (
        _steps(image, first[chosen].mean(axis=1), second[chosen].mean(axis=1))
        for chosen in (is_seam & is_flat, is_seam & ~is_flat)
    )
    middle = first[~is_seam].mean(axis=1)
    along = first[~is_seam, 1] - first[~is_seam, 0]
    aside = np.stack([-along[:, 1], along[:, 0]], axis=1)
    aside *= 0.5 / atlas.size / np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), 1e-12)
    within = _steps(image, middle - aside, middle + aside)
    return SeamSteps(
        across_median=_quantile(across, 0.5),
        across_p95=_quantile(across, 0.95),
        crease_median=_quantile(crease, 0.5),
        crease_p95=_quantile(crease, 0.95),
        within_median=_quantile(within, 0.5),
        within_p95=_quantile(within, 0.95),
    )


def _sides(
    atlas: Atlas,
) -> tuple[Float[np.ndarray, "edges 2 2"], Float[np.ndarray, "edges 2 2"], Bool[np.ndarray, "edges"]]:
    """Of each edge of the closed mesh the texture coordinates of its ends, in one face and in the other; if flat."""
    _, place = np.unique(atlas.vertices, axis=0, return_inverse=True)
    ends = np.stack([atlas.faces, np.roll(atlas.faces, -1, axis=1)], axis=-1).reshape(-1, 2)
    places = place.ravel()[ends]
    swapped = places[:, 0] > places[:, 1]
    ends[swapped], places[swapped] = ends[swapped, ::-1], places[swapped, ::-1]
    order = np.lexsort(places.T)
    one, other = order[::2], order[1::2]
    corners = atlas.vertices[atlas.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    bend = (normals[one // 3] * normals[other // 3]).sum(axis=1)
    return atlas.uv[ends[one]], atlas.uv[ends[other]], bend > np.cos(np.radians(_FLAT_DEG))


def _steps(image: np.ndarray, one: np.ndarray, other: np.ndarray) -> Float[np.ndarray, "places"]:
    colors = [looked_up(image, torch.from_numpy(uv.astype(np.float32))) for uv in (one, other)]
    return (colors[0] - colors[1]).abs().mean(dim=1).numpy()


def _quantile(steps: np.ndarray, share: float) -> float:
    return round(float(np.quantile(steps, share)), 5) if len(steps) else 0.0
