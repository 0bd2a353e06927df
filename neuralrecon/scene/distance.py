"""Signed distance to the edge of a mask, in cells."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64
from scipy.ndimage import distance_transform_edt


def signed_distance(
    mask: Bool[np.ndarray, "..."], beyond: Bool[np.ndarray, "..."] | None = None
) -> Float64[np.ndarray, "..."]:
    """Positive outside; the edge runs half a cell off the outermost cells that are True.

    Args:
        beyond: the mask with one more cell on every side, where what lies beyond its borders is known; else it ends
            there with the values at the border.
    """
    padded = np.pad(mask, 1, mode="edge") if beyond is None else beyond
    core = tuple(slice(1, -1) for _ in range(mask.ndim))
    inside = np.asarray(distance_transform_edt(padded))[core]
    return np.where(mask, 0.5 - inside, np.asarray(distance_transform_edt(~mask)) - 0.5)
