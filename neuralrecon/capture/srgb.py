"""sRGB, in which photographs and meshes are stored, and light."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def linear_of(srgb: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Linear light in [0, 1] of sRGB in [0, 1] (IEC 61966-2-1).

    Example:
        >>> round(float(linear_of(np.array(96 / 255))) * 255)
        30
    """
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
