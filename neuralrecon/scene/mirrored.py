"""Depth readings of the table's picture in the object: on mirror-like and clear walls they agree from view to view.

The table turns with the object, so its mirrored picture stands still in the object's frame, and readings of it confirm
each other as right ones do. But where it is seen is known: at the end of the ray that the wall throws to the table.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from .hull import VisualHull

_SKIN_MM = 3.0  # so far in the hull a ray is taken to meet the wall: by about so much the hull is too wide
_WAY_MM = 110  # at most so far before a reading
_OFF_MM, _OFF_SHARE = 4.0, 0.3  # room for errors of the wall's place, and of its slope as a share of the way thrown
_FARTHEST_MM = 80.0
_LEAST_DROP = 0.05  # of a thrown ray, per length


def of_mirrored_table(
    points: Float[Tensor, "readings 3"],
    origins: Float[Tensor, "readings 3"],
    hull: VisualHull,
    floor: float,
    unit_per_mm: float,
) -> Bool[Tensor, "readings"]:
    """Which readings lie as far as the table would seem to, mirrored by the hull where the ray enters it.

    A camera reads the length of its light's way: to the wall, and on to the table along the mirrored direction.

    Args:
        points, origins: readings and the cameras that each was seen from, in unit lengths.
        floor: the table's height in unit lengths.
    """
    along = points - origins
    distances = along.norm(dim=1)
    directions = along / distances[:, None]
    to_wall, was_out = torch.full_like(distances, torch.inf), torch.zeros(len(points), dtype=torch.bool)
    for before_mm in range(_WAY_MM, -1, -1):
        at = distances - before_mm * unit_per_mm
        is_in = hull.look_up(origins + directions * at[:, None]) < -_SKIN_MM * unit_per_mm
        to_wall = torch.where(is_in & was_out & to_wall.isinf(), at, to_wall)
        was_out |= ~is_in
    behind_mm = (distances - to_wall) / unit_per_mm
    walls = origins + directions * torch.where(to_wall.isinf(), distances, to_wall)[:, None]
    normals = normalize(hull.slopes(walls), dim=1)
    drops = 2 * (directions * normals).sum(dim=1) * normals[:, 2] - directions[:, 2]
    to_table_mm = (walls[:, 2] - floor) / drops.clamp_min(_LEAST_DROP) / unit_per_mm
    off_mm = (behind_mm - to_table_mm).abs()
    is_thrown_down = (drops > _LEAST_DROP) & (to_table_mm < _FARTHEST_MM)
    return is_thrown_down & (behind_mm > _SKIN_MM) & (off_mm < _OFF_MM + _OFF_SHARE * to_table_mm)
