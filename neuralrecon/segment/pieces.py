"""Connected pieces of an outline."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import label

from .views import Outline

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


def _pieces(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbered pieces (0 is off the mask) and their areas in pixels."""
    pieces = np.zeros(mask.shape, np.int32)
    label(mask, output=pieces)
    return pieces, np.bincount(pieces.ravel())[1:]
