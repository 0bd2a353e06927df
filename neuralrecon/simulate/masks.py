"""Silhouettes, and the ways in which BigBIRD's are wrong."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.ndimage import binary_erosion, shift

from .prints import solid_noise
from .settings import SimulateConfig

_HOLE_CELL_M = 0.015


def hole_level(vertices: Float[np.ndarray, "vertices 3"], config: SimulateConfig) -> float:
    """The noise below which the surface is missing, so that `mask_holes` of the vertices are."""
    return float(np.quantile(solid_noise(vertices, _lattice(config), _HOLE_CELL_M), config.mask_holes))


def drawn_mask(
    coverage: Float[np.ndarray, "v u"],
    points: Float[np.ndarray, "v u 3"],
    level: float,
    config: SimulateConfig,
    sensor_seed: int,
) -> Bool[np.ndarray, "v u"]:
    """True on the object: more than half a pixel is covered. Holes stay at the same place of the object in all images,
    the shift in the same direction in all images of a sensor.
    """
    covered = coverage.copy()
    if config.mask_holes > 0:
        inside = np.nonzero(coverage)
        covered[inside] *= solid_noise(points[inside], _lattice(config), _HOLE_CELL_M) >= level
    if config.mask_shift_px > 0:
        angle = np.random.default_rng([config.seed, 6, sensor_seed]).uniform(0, 2 * np.pi)
        way = config.mask_shift_px * np.array([np.sin(angle), np.cos(angle)])
        covered = shift(covered, way, order=1)
    mask = covered > 0.5
    if config.mask_erode_px > 0:
        mask = binary_erosion(mask, iterations=config.mask_erode_px)
    return mask


def _lattice(config: SimulateConfig) -> ndarray:
    return np.random.default_rng([config.seed, 7]).random((24, 24, 24)).astype(np.float32)
