"""Labels as points of three kinds: occupied, free, and not observed."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from jaxtyping import Float32

from ..label import OccupancyLabels


class PointKind(StrEnum):
    """What a label says of its point; what was not observed is neither shown as occupied nor as free."""

    occupied = "occupied"
    free = "free"
    unobserved = "unobserved"


POINT_COLORS = {
    PointKind.occupied: (214, 96, 45),
    PointKind.free: (66, 133, 190),
    PointKind.unobserved: (140, 140, 148),
}


def points_by_kind(labels: OccupancyLabels, most: int) -> dict[PointKind, Float32[np.ndarray, "points 3"]]:
    """Points of each kind in world, every n-th of all so that there are at most so many."""
    every = max(1, -(-len(labels.occupancy) // most))
    points, occupied = labels.points_in_world[::every], labels.occupancy[::every]
    observed = np.ones(len(points), bool) if labels.observed is None else labels.observed[::every]
    return {
        PointKind.occupied: points[occupied & observed],
        PointKind.free: points[~occupied & observed],
        PointKind.unobserved: points[~observed],
    }
