"""Connected pieces of an outline."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_fill_holes, distance_transform_edt, label

from .views import Outline

_CLOSING = 0.10  # of the object's size: gaps in a first guess that are no more than this
_LEAST_PIECE, _MOST_HOLE = 0.05, 0.03  # of the largest piece


def largest_piece(outline: Outline, least_share: float) -> Outline:
    """The largest connected piece; nothing if that is smaller than `least_share` of the image."""
    pieces, areas = _pieces(outline)
    if not len(areas) or areas.max() < least_share * outline.size:
        return np.zeros_like(outline)
    return pieces == 1 + int(areas.argmax())


def tidied(outline: Outline) -> Outline:
    """Without specks, and with pinholes filled."""
    pieces, areas = _pieces(outline)
    if not len(areas):
        return outline
    whole = np.r_[False, areas >= _LEAST_PIECE * areas.max()][pieces]
    holes, sizes = _pieces(~whole)
    return whole | np.r_[False, sizes < _MOST_HOLE * areas.max()][holes]


def without_specks(outline: Outline, least_px: int) -> Outline:
    """Only pieces of so many pixels."""
    pieces, areas = _pieces(outline)
    return np.r_[False, areas >= least_px][pieces]


def filled(outline: Outline) -> Outline:
    """Without holes, and without gaps that are narrow against the object."""
    whole = np.asarray(binary_fill_holes(outline))
    if not whole.any():
        return whole
    n = int(_CLOSING * np.sqrt(whole.sum())) | 1
    # by distance: half the gap's width out, and as much back in
    grown = np.asarray(distance_transform_edt(~np.pad(whole, n))) <= n / 2
    closed = np.asarray(distance_transform_edt(grown)) > n / 2
    return np.asarray(binary_fill_holes(whole | closed[n:-n, n:-n]))


def _pieces(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbered pieces (0 is off the mask) and their areas in pixels."""
    pieces = np.zeros(mask.shape, np.int32)
    label(mask, output=pieces)
    return pieces, np.bincount(pieces.ravel())[1:]
