"""Numbers as colours, and pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image as Pillow

Picture = UInt8[np.ndarray, "v u 3"]

# Rows of a colour map at even distances. The first rises in lightness (after matplotlib's viridis), the second is for
# signs: blue below zero, red above; the third goes from what is not believed to what is.
SEQUENTIAL = ((68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99),
              (170, 220, 50), (253, 231, 37))  # fmt: skip
DIVERGING = (
    (5, 48, 97),
    (67, 147, 195),
    (209, 229, 240),
    (247, 247, 247),
    (253, 219, 199),
    (214, 96, 77),
    (103, 0, 31),
)
DOUBT = ((178, 24, 43), (244, 165, 70), (255, 255, 191), (102, 189, 99), (0, 104, 55))
NOTHING = (225, 227, 230)
_LINE = (30, 32, 36)
_GAP_PX = 4
_NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def colored(
    values: Float[np.ndarray, "v u"], low: float, high: float, colors: Sequence[tuple[int, int, int]]
) -> Picture:
    """Values from `low` to `high` along a colour map, held beyond; what is not finite has the colour `NOTHING`."""
    told = np.isfinite(values)
    share = np.clip((np.where(told, values, low) - low) / max(high - low, 1e-12), 0, 1)
    rows = np.linspace(0, 1, len(colors))
    channels = [np.interp(share, rows, [color[i] for color in colors]) for i in range(3)]
    picture = np.round(np.stack(channels, axis=-1)).astype(np.uint8)
    picture[~told] = NOTHING
    return picture


def normals_colored(normals: Float[np.ndarray, "v u 3"]) -> Picture:
    """Unit vectors as (x + 1) / 2 in red, y in green, z in blue; where they are not finite the colour `NOTHING`."""
    told = np.isfinite(normals).all(axis=-1)
    picture = np.round(np.clip(np.nan_to_num(normals) * 0.5 + 0.5, 0, 1) * 255).astype(np.uint8)
    picture[~told] = NOTHING
    return picture


def contours(values: Float[np.ndarray, "v u"], every: float) -> Bool[np.ndarray, "v u"]:
    """Pixels beside which the values pass a multiple of `every`."""
    steps = np.floor(np.nan_to_num(values) / every)
    found = np.zeros(values.shape, bool)
    found[:, 1:] |= steps[:, 1:] != steps[:, :-1]
    found[1:] |= steps[1:] != steps[:-1]
    return found


def signed_picture(values: Float[np.ndarray, "v u"], most: float, every: float) -> Picture:
    """Signed distances from -`most` (blue) to `most` (red), with a line at zero and faint ones at multiples."""
    picture = colored(values, -most, most, DIVERGING)
    faint = contours(values, every) & (np.abs(values) < most)
    picture[faint] = (0.75 * picture[faint]).astype(np.uint8)
    inside = np.pad(values < 0, 1, mode="edge")
    beside = [inside[1 + v : inside.shape[0] - 1 + v, 1 + u : inside.shape[1] - 1 + u] for v, u in _NEIGHBOURS]
    picture[np.any([side != inside[1:-1, 1:-1] for side in beside], axis=0)] = _LINE
    return picture


def resized(picture: Picture, width: int, height: int) -> Picture:
    """Resampled, areas averaged."""
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Pillow.fromarray(picture).resize((width, height), Pillow.Resampling.BOX))


def side_by_side(pictures: Sequence[Picture]) -> Picture:
    """Pictures of one size next to each other, or, where they are wide, below each other."""
    height, width = pictures[0].shape[:2]
    along = 0 if width > 1.25 * height else 1
    gap_shape = (_GAP_PX, width, 3) if along == 0 else (height, _GAP_PX, 3)
    gap = np.full(gap_shape, 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)][1:]
    return np.concatenate(parts, axis=along)


def bar(colors: Sequence[tuple[int, int, int]], width: int = 240, height: int = 10) -> Picture:
    """A colour map from its low end on the left to its high end."""
    return colored(np.tile(np.linspace(0, 1, width), (height, 1)), 0, 1, colors)
